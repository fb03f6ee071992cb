"""The command line on a flow: classes as prompts, solvers, and options that are for tokens."""

import json
from pathlib import Path

import pytest
from PIL import Image

from sjd_pipelines import FLOW_SOLVERS, SCHEDULERS, JacobiFlowSolver
from sjd_pipelines.benchmark.toy_flow import toy_flow_pipeline

SOLVERS = ", ".join(FLOW_SOLVERS)


def files():
    return sorted(path.name for path in Path().iterdir())


class ClampedSolver(JacobiFlowSolver):
    """Claims to be exact and keeps its iterates between -1 and 1."""

    def step(self, log_scale, shift, state):
        state = super().step(log_scale, shift, state)
        state.sample.clamp_(-1, 1)
        return state


def test_a_class_becomes_a_picture(sjd, flow_model):
    status, out, err = sjd("generate", "red fox", "1", "--model", flow_model, "--seed", 3, "--stats", "stats.json")
    assert (status, err) == (0, "")
    assert files() == ["1-4.png", "red-fox-3.png", "stats.json"]
    with Image.open("red-fox-3.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (8, 8))
    records = json.loads(Path("stats.json").read_text())
    assert [(record["prompt"], record["seed"]) for record in records] == [("red fox", 3), ("1", 4)]
    for record, line in zip(records, out.splitlines()):
        assert set(record) == {
            "prompt", "seed", "picture_seed", "scheduler", "label", "error", "forward_passes", "seconds", "blocks",
        }  # fmt: skip
        assert (record["scheduler"], record["label"]) == ("frontier", "exact")
        assert record["forward_passes"] == sum(block["passes"] for block in record["blocks"]) < 30
        assert f"2 blocks in {record['forward_passes']} forward passes, " in line


def test_pictures_depend_on_their_seed_alone_and_are_drawn_again(sjd, flow_model):
    run = ("generate", "dog", "cat", "--model", flow_model, "--quiet", "--set", "tolerance=1e-3")
    sjd(*run, "--scheduler", "frontier", "--seed", 1, "--stats", "stats.json", "--grid", "sheet.png")
    seeds = [record["picture_seed"] for record in json.loads(Path("stats.json").read_text())]
    again = ("--picture-seeds", *seeds, "--batch-size", 2, "-o", "again")
    status, out, _ = sjd(*run, "--scheduler", "flow-jacobi", *again)
    assert (status, out.split()) == (0, [f"again/dog-{seeds[0]}.png", f"again/cat-{seeds[1]}.png"])
    for first, second in zip(("dog-1.png", "cat-2.png"), out.split()):
        with Image.open(first) as one, Image.open(second) as other:
            pairs = zip(one.tobytes(), other.tobytes())
            assert max(abs(a - b) for a, b in pairs) <= 2


def test_a_job_of_classes(sjd, flow_model):
    Path("a.txt").write_text("cat\nred fox\nno class\n")
    status, out, err = sjd("draw", "a.txt", "-o", "out", "--model", flow_model)
    assert (status, err) == (1, "")
    assert out.startswith("2 of 3 drawn, 1 failed, 0 to be drawn\n  1 x prompt: This model draws classes")
    Path("a.txt").write_text("cat\nred fox\n")
    assert sjd("generate", "--prompts", "a.txt", "-o", "same/", "--model", flow_model, "--quiet")[0] == 0
    for path in Path("out").glob("pictures/*/*.png"):
        assert path.read_bytes() == Path("same", path.name).read_bytes()


def test_the_window_alone_changes_the_models_solver(sjd, flow_model):
    run = ("generate", "cat", "--model", flow_model, "--quiet", "--stats", "stats.json")
    sjd(*run)
    (wide,) = json.loads(Path("stats.json").read_text())
    sjd(*run, "--window", 2)
    (narrow,) = json.loads(Path("stats.json").read_text())
    assert narrow["scheduler"] == "frontier"
    assert narrow["forward_passes"] > wide["forward_passes"]


BAD_INPUT = {
    ("lemon",): ("prompt: This model draws classes, by index in [0, 3) or by name (cat, dog, red fox); got 'lemon'."),
    ("3",): "prompt: This model draws classes, by index in [0, 3) or by name (cat, dog, red fox); got '3'.",
    ("dog", "dof"): (
        "prompt: This model draws classes, by index in [0, 3) or by name (cat, dog, red fox); got 'dof'. Did you mean "
        "dog?"
    ),
    ("cat", "--temperature", "1"): "--temperature does not apply to a flow, which draws no tokens.",
    ("cat", "--top-k", "0"): "--top-k does not apply to a flow, which draws no tokens.",
    ("cat", "--top-p", "1"): "--top-p does not apply to a flow, which draws no tokens.",
    ("cat", "--negative-prompt", ""): "--negative-prompt does not apply to a flow, which draws no tokens.",
    ("cat", "--gif", "a.gif"): "--gif does not apply to a flow, which draws no tokens.",
    ("cat", "--guidance-scale", "-1"): "guidance_scale must be a number from 0 to 1000, got -1.0.",
    ("cat", "--scheduler", "sjd"): f"sjd decodes tokens, and this takes one of {SOLVERS}.",
    ("cat", "--scheduler", "magic"): f"unknown solver 'magic'; known are {SOLVERS}.",
    ("cat", "--scheduler", "frontier", "--set", "speed=1"): (
        "solver frontier has no setting 'speed'; it has tolerance, window, start."
    ),
    ("cat", "--scheduler", "frontier", "--window", "auto"): (
        "solver frontier: window must be an integer from 1 to 65536 or None, got 'auto'."
    ),
    ("cat", "--scheduler", "frontier", "--set", "tolerance=loose"): (
        "solver frontier: tolerance must be a number from 0 to 1, got 'loose'."
    ),
    ("cat", "--scheduler", "planned"): "The plan has 0 blocks; this flow has 2. Make one with calibrate().",
    ("cat", "--scheduler", "gauss-seidel-jacobi"): "strategy names block 6; this flow has blocks 0 to 1.",
}


@pytest.mark.parametrize("argv", BAD_INPUT, ids=" ".join)
def test_bad_input_is_one_line(sjd, flow_model, argv):
    status, out, err = sjd("generate", *argv, "--model", flow_model, "--seed", 1, "--quiet")
    assert (status, out, err) == (2, "", f"sjd: error: {BAD_INPUT[argv]}\n")
    assert files() == []


def test_a_solver_is_not_for_a_model_of_tokens(sjd, model):
    status, _, err = sjd("generate", "car", "--model", model, "--scheduler", "frontier")
    assert (status, err) == (
        2,
        f"sjd: error: frontier solves flows, and this takes one of {', '.join(SCHEDULERS)}.\n",
    )


@pytest.mark.parametrize("command", [("fidelity",), ("benchmark", "--library"), ("benchmark", "--windows", "4")])
def test_commands_for_tokens_refuse_a_flow(sjd, flow_model, command):
    status, out, err = sjd(*command, "--model", flow_model)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "this takes a model that decodes tokens" in err or "does not apply to" in err


def test_overflow_is_one_line(sjd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "wild"
    toy_flow_pipeline(gain=100.0).save_pretrained(folder)
    status, out, err = sjd("generate", "cat", "--model", folder, "--seed", 1, "--quiet")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("sjd: error: The flow overflows: tokens grow beyond all numbers")
    assert files() == []


def test_verify_holds_solvers_to_their_labels(sjd, monkeypatch):
    names = ("sequential", "gauss-seidel-jacobi", "frontier")
    status, out, err = sjd("verify", "--schedulers", *names, "--json", "verdicts.json")
    assert (status, err) == (0, "")
    verdicts = json.loads(Path("verdicts.json").read_text())
    rows = [(verdict["scheduler"], verdict["settings"].split("=")[0], verdict["label"]) for verdict in verdicts]
    assert rows == [
        ("sequential", "", "exact"),
        ("gauss-seidel-jacobi", "strategy", "approximate"),
        ("frontier", "", "exact"),
        ("frontier", "tolerance", "approximate"),
        ("frontier", "window", "exact"),
    ]
    assert verdicts[0]["error"] == 0 < verdicts[2]["error"] < verdicts[2]["limit"] < verdicts[1]["error"]
    assert len(out.splitlines()) == 2 + len(verdicts)
    monkeypatch.setitem(FLOW_SOLVERS, "clamped", ClampedSolver)
    status, out, _ = sjd("verify", "--schedulers", "clamped")
    assert status == 1
    assert out.count("BROKEN") == 1


def test_benchmark_of_named_solvers(sjd, flow_model):
    names = ("sequential", "frontier", "frontier:tolerance=1e-2,start=zeros")
    what = ("benchmark", "--model", flow_model, "--schedulers", *names, "--prompts", 3, "--repeats", 2)
    status, out, err = sjd(*what, "--batch-size", 2, "--json", "flow.json")
    assert (status, err) == (0, "")
    numbers = json.loads(Path("flow.json").read_text())
    assert [cell["guidance_scale"] for cell in numbers["cells"]] == [0.0, 0.5]
    for cell in numbers["cells"]:
        sequential, exact, loose = cell["results"]
        assert [row["passes"] for row in cell["results"]] == sorted(
            [row["passes"] for row in cell["results"]], reverse=True
        )
        assert (sequential["error"], sequential["psnr"], sequential["passes"]) == (0, None, 30)
        assert exact["error"] < 2e-6 < loose["error"] < 0.5
        assert exact["psnr"]["worst"] > loose["psnr"]["worst"]
        assert len(exact["samples"]) == 2 + 1
        assert exact["object"] is None
    assert numbers["claims"] == []
    assert len(out.split("\n\n")) == 1 + 2 * 2


def test_benchmark_in_float64(sjd, flow_model):
    """Where nothing rounds a solver without tolerance ends where sequential sampling does."""
    names = ("frontier:tolerance=0", "frontier")
    what = ("--prompts", 1, "--repeats", 1, "--batch-size", 1, "--guidance-scale", 0.5, "--json", "flow.json")
    status, _, err = sjd("benchmark", "--model", flow_model, "--dtype", "float64", "--schedulers", *names, *what)
    assert (status, err) == (0, "")
    numbers = json.loads(Path("flow.json").read_text())
    assert numbers["facts"]["dtype"] == "float64"
    _, still, exact = numbers["cells"][0]["results"]
    assert still["error"] < 1e-13 < exact["error"] < 2e-6
    status, out, err = sjd("benchmark", "--dtype", "float64")
    assert (status, out) == (2, "")
    assert err == "sjd: error: --dtype float64 is for flows, to see what solvers do where nothing rounds.\n"


@pytest.mark.slow
def test_report_of_all_solvers(sjd, flow_model):
    what = ("--prompts", 2, "--repeats", 1, "--batch-size", 1, "--guidance-scale", 0)
    status, out, err = sjd("benchmark", "--model", flow_model, "--report", "made", *what)
    assert (status, out, err) == (0, f"{Path('made', 'index.html')}\n", "")
    assert files() == ["made"]
    report = json.loads(Path("made", "report.json").read_text())["report"]
    (cell,) = report["cells"]
    chosen = [row["chosen"] for row in cell["results"]]
    modes = ("exact", "safe", "fast")
    assert chosen[5:] == [
        *(f"searched, {mode}" for mode in modes),
        *(f"{mode}, {objective}" for objective in ("passes", "seconds") for mode in modes),
        "CRM and IGM",
    ]
    assert set(cell["calibrations"]) == set(chosen[8:-1])
    assert len(report["claims"]) == 11
    page = Path("made", "index.html").read_text()
    assert "<h1>Flow report</h1>" in page
    assert page.count("<tr") == 3 + 11 + len(chosen) + 6
    Path("made", "index.html").unlink()
    sjd("benchmark", "--report", "made")
    assert Path("made", "index.html").read_text() == page
