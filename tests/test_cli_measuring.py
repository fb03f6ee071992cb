"""The measuring commands on a toy: benchmark, report, fidelity, verify, step-cost."""

import json
import re
from pathlib import Path

import pytest

from sjd_pipelines import SCHEDULERS, SeededJacobiScheduler
from sjd_pipelines.benchmark import report
from sjd_pipelines.cli.report import SWEEPS

REPORT = (
    *("--schedulers", "autoregressive", "sjd", "--windows", "1,4", "--shown", 1, "--prompts", 1, "--per-kind", 1),
    *("--swept", 1, "--sweeps", "window", "--no-relaxed", "--samples", 200, "--guidance-scale", 3),
)


class BrokenScheduler(SeededJacobiScheduler):
    """Claims to be exact and commits the likeliest token."""

    def redraft(self, slots):
        return slots.likeliest


class StoppedScheduler(SeededJacobiScheduler):
    """Somebody presses Ctrl-C in its fourth picture, the first that is timed."""

    pictures = 0

    def start(self, *arguments, **options):
        StoppedScheduler.pictures += 1
        if StoppedScheduler.pictures == 4:
            raise KeyboardInterrupt
        return super().start(*arguments, **options)


@pytest.fixture
def stopped(monkeypatch):
    """Registered as `stopped`; works from the fifth picture on."""
    monkeypatch.setattr(StoppedScheduler, "pictures", 0)
    monkeypatch.setitem(SCHEDULERS, "stopped", StoppedScheduler)


def files(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


def without_unknown_words(err):
    """What was said besides of the captions, most of which the toy does not understand."""
    said, count = re.subn(r"sjd: This model does not know .*; `sjd info` of it lists its words\.\n", "", err)
    assert count
    return said


def test_benchmark(sjd, model):
    names = ("autoregressive", "sjd", "sjd:initialise=uniform")
    what = ("--model", model, "--schedulers", *names, "--windows", "1,4", "auto", "--prompts", 2)
    status, out, err = sjd("benchmark", *what, "--repeats", 1, "--library", "--json", "speed.json")
    assert (status, without_unknown_words(err)) == (0, "")
    numbers = json.loads(Path("speed.json").read_text())
    assert numbers["command"].startswith("sjd benchmark --model ")
    assert numbers["facts"]["model"] == "toy"
    rows = [(row["name"], row["window"]) for row in numbers["results"]]
    sjd_rows = [("sjd", 1), ("sjd", 4), ("sjd", "auto")]
    assert rows == [("autoregressive", 0), ("library", None), *sjd_rows, *sjd_rows]
    assert [row["settings"].get("initialise") for row in numbers["results"][-4:]] == ["law-above", *["uniform"] * 3]
    lines = out.splitlines()[-8:]
    assert [line.split()[0] for line in lines] == [name for name, _ in rows]
    assert ["initialise=uniform" in line for line in lines] == [False] * 5 + [True] * 3
    status, _, err = sjd("benchmark", *what, "--library", "--guidance-scale", 1)
    assert status == 2
    assert err == "sjd: error: The library draws with guidance above 1 only, got guidance_scale 1.0.\n"


def test_an_interrupted_benchmark_goes_on_in_its_file(sjd, model, stopped):
    what = ("benchmark", "--model", model, "--schedulers", "stopped", "--windows", 2, "--prompts", 2, "--repeats", 1)
    status, _, err = sjd(*what, "--json", "speed.json")
    assert (status, without_unknown_words(err)) == (130, "sjd: interrupted\n")
    assert files() == ["speed.json"]
    saved = json.loads(Path("speed.json").read_text())["unfinished"]
    before = {key: value["seconds"] for key, value in saved["measurements"].items() if key.startswith("repeat")}
    assert before  # sequential decoding was timed
    status, _, err = sjd(*what, "--json", "speed.json", "--seed", 1)
    assert (status, err.count("\n")) == (2, 1)
    assert "The unfinished run has other settings: method.seed" in err
    status, _, _ = sjd(*what, "--json", "speed.json")
    assert status == 0
    results = json.loads(Path("speed.json").read_text())["results"]
    assert [result["name"] for result in results] == ["autoregressive", "stopped"]
    assert list(before.values()) == results[0]["samples"][: len(before)]
    status, _, err = sjd(*what, "--json", "speed.json")
    assert (status, err) == (
        2,
        "sjd: error: --json speed.json: holds something finished; delete it or name another file.\n",
    )


def test_a_report_is_a_page_and_its_numbers(sjd, model):
    status, out, err = sjd("benchmark", "--model", model, "--report", "made", *REPORT)
    assert (status, out, without_unknown_words(err)) == (0, f"{Path('made', 'index.html')}\n", "")
    assert files("made") == ["index.html", "report.json"]
    page = Path("made", "index.html").read_text()
    numbers = json.loads(Path("made", "report.json").read_text())
    assert numbers["command"].startswith("sjd benchmark --model ")
    assert [entry["name"] for entry in numbers["report"]["schedulers"]] == ["autoregressive", "sjd"]
    assert numbers["report"]["library"]["passes"] == 16
    Path("made", "index.html").unlink()
    Path("made", "NOTES.md").write_text("What we learned.")
    status, _, _ = sjd("benchmark", "--report", "made")  # from the numbers alone: no model, no options
    assert status == 0
    assert Path("made", "index.html").read_text() == page
    assert Path("made", "NOTES.md").read_text() == "What we learned."


def test_an_interrupted_report_goes_on_in_its_folder(sjd, model, stopped):
    what = ("benchmark", "--model", model, "--report", "made", *REPORT, "--schedulers", "stopped")
    status, _, err = sjd(*what)
    assert (status, without_unknown_words(err)) == (130, "sjd: interrupted\n")
    assert files("made") == ["unfinished.json"]
    status, _, err = sjd(*what, "--temperature", 2)
    assert (status, err) == (2, "sjd: error: The unfinished run has other settings: method.sampling.\n")
    status, _, _ = sjd(*what)
    assert status == 0
    assert files("made") == ["index.html", "report.json"]


@pytest.mark.parametrize(
    ("holds", "says"),
    [
        ({"notes.txt": "mine"}, "holds other files than a report; name a new or an empty folder."),
        ({"index.html": "mine"}, "holds other files than a report; name a new or an empty folder."),
        (
            {"index.html": "mine", "NOTES.md": "mine"},
            "holds other files than a report; name a new or an empty folder.",
        ),
        ({"report.json": "[1]"}, "report.json there is not that of a report."),
        ({"report.json": "[" * 100_000}, "report.json there is not that of a report."),
        ({"report.json": '{"command": 1, "created": 2, "report": 3}'}, "report.json there is not that of a report."),
        (
            {"report.json": '{"command": "a", "created": "b", "report": {"kind": ["flow"]}}'},
            "report.json there was edited, or is another version's; delete it to measure again.",
        ),
        (
            {"report.json": '{"command": "a", "created": "b", "report": {"kind": "flow", "cells": 3}}'},
            "report.json there was edited, or is another version's; delete it to measure again.",
        ),
    ],
)
def test_a_foreign_folder_is_left_alone(sjd, holds, says):
    Path("made").mkdir()
    for name, text in holds.items():
        Path("made", name).write_text(text)
    status, out, err = sjd("benchmark", "--report", "made", "--model", "nowhere")
    assert (status, out, err) == (2, "", f"sjd: error: --report made: {says}\n")
    assert {name: Path("made", name).read_text() for name in files("made")} == holds


def test_the_parser_knows_every_curve():
    assert tuple(report.SWEEPS) == SWEEPS


def test_nothing_is_made_where_a_report_cannot_start(sjd):
    status, _, err = sjd("benchmark", "--report", "made", "--schedulers", "magic")
    assert (status, files()) == (2, [])
    assert err.startswith("sjd: error: unknown scheduler 'magic'")
    status, _, err = sjd("benchmark", "--report", "made", "--model", "nowhere")
    assert (status, files()) == (2, [])
    status, _, err = sjd("benchmark", "--report", "missing/made")
    assert (status, err) == (2, "sjd: error: --report: the folder missing does not exist.\n")


def test_json_of_something_else_is_left_alone(sjd):
    for text in ("not JSON", "[]", '{"results": []}'):
        Path("a.json").write_text(text)
        status, _, err = sjd("benchmark", "--json", "a.json", "--model", "nowhere")
        assert status == 2
        assert err.startswith("sjd: error: --json a.json: ")
        assert Path("a.json").read_text() == text


@pytest.mark.parametrize("journal", [3, [], {}, {"measurements": 3}, {"settings": [], "measurements": {}}])
def test_an_edited_journal_is_not_gone_on_with(sjd, journal):
    for seal in ({}, {"sha256": "0" * 64}, {"sha256": None, "more": 1}):
        text = json.dumps({"unfinished": journal} | seal)
        Path("a.json").write_text(text)
        status, _, err = sjd("benchmark", "--json", "a.json", "--model", "nowhere")
        assert (status, err.count("\n")) == (2, 1)
        assert err.startswith("sjd: error: --json a.json: the unfinished run in it was edited")
        assert Path("a.json").read_text() == text


def test_fidelity_needs_the_judges_world(sjd, model):
    status, _, err = sjd("fidelity", "--model", model, "--json", "fidelity.json")
    assert (status, err) == (2, "sjd: error: Only pictures of the bundled checkpoint's world can be judged.\n")
    assert files() == []


@pytest.mark.slow
def test_fidelity_of_the_bundled_model(sjd):
    what = ("fidelity", "--schedulers", "tree-jacobi", "--per-kind", 1, "--batch-size", 1)
    status, out, err = sjd(*what, "--json", "fidelity.json")
    assert (status, err) == (0, "")
    numbers = json.loads(Path("fidelity.json").read_text())
    assert numbers["method"]["per_kind"] == 1
    assert numbers["ceilings"]["rendered (ceiling)"]["all"] == 1
    (result,) = numbers["schedulers"]
    assert list(result["scores"]) == ["single", "count", "relation", "all"]
    assert result["scores"]["single"]["background"] == 1
    assert len(out.splitlines()) == 2 + 2 + 4
    told = [line.split()[1:3] for line in out.splitlines()[-4:]]
    assert told == [[kind, f"{result['passes_by_kind'][kind]:.1f}"] for kind in result["scores"]]


def test_verify(sjd, monkeypatch):
    status, out, _ = sjd("verify", "--schedulers", "seeded-jacobi", "sjd", "--samples", 500, "--json", "verdicts.json")
    assert status == 0
    verdicts = json.loads(Path("verdicts.json").read_text())
    assert {verdict["scheduler"] for verdict in verdicts} == {"seeded-jacobi", "sjd"}
    assert len(out.splitlines()) == 2 + len(verdicts)
    monkeypatch.setitem(SCHEDULERS, "broken", BrokenScheduler)
    status, out, _ = sjd("verify", "--schedulers", "broken", "--samples", 500)
    assert status == 1
    assert "BROKEN" in out
    status, out, _ = sjd("verify", "--schedulers", "lantern", "--windows", 2, "--samples", 2000)
    assert status == 0
    assert out.splitlines()[-1].endswith("beyond the limit, as labelled")


def test_step_cost(sjd):
    sizes = ("--window", 4, "--codebook-size", 64, "--batch-size", 2)
    status, out, _ = sjd("step-cost", "--schedulers", "sjd", "eagle", *sizes, "--json", "cost.json")
    assert status == 0
    numbers = json.loads(Path("cost.json").read_text())
    assert numbers[
        "command"
    ] == "sjd step-cost --schedulers sjd eagle --window 4 --codebook-size 64 --batch-size 2 " + ("--json cost.json")
    assert [cost["name"] for cost in numbers["costs"]] == ["sjd", "eagle"]
    assert len(out.splitlines()) == 4
