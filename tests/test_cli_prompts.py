"""`sjd generate` in shells and scripts: prompts from files and pipes, sizes, interruptions, odd outputs."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sjd_pipelines import SCHEDULERS, SeededJacobiScheduler
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.cli import main
from sjd_pipelines.jobs.provenance import KEY


def files():
    return sorted(path.name for path in Path().iterdir())


def remembered(path):
    with Image.open(path) as picture:
        return json.loads(picture.info[KEY])


class SecondBatchScheduler(SeededJacobiScheduler):
    """Somebody presses Ctrl-C in the second batch."""

    calls = 0

    def plan(self, state, noise):
        if state.passes == 0:
            type(self).calls += 1
        if self.calls == 2 and state.passes == 2:
            raise KeyboardInterrupt
        return super().plan(state, noise)


@pytest.fixture
def interrupting(monkeypatch):
    monkeypatch.setattr(SecondBatchScheduler, "calls", 0)
    monkeypatch.setitem(SCHEDULERS, "interrupting", SecondBatchScheduler)
    return "interrupting"


def test_prompts_of_a_file(sjd, model):
    Path("prompts.txt").write_text("car\n\na red dog\n")
    run = ("generate", "--prompts", "prompts.txt", "--model", model, "--quiet")
    status, out, err = sjd(*run)
    assert (status, out, err) == (0, "000001.png\n000002.png\n", "")
    sjd(*run, "--seed", 5, "-o", "a.png", "--num-images", 2)
    assert files() == ["000001.png", "000002.png", *(f"a-{i}.png" for i in range(4)), "prompts.txt"]
    sjd("generate", "a red dog", "--model", model, "--seed", 8, "-o", "alone.png")
    assert Path("a-3.png").read_bytes() == Path("alone.png").read_bytes()
    seed = remembered("000001.png")["picture_seed"]
    sjd("generate", "car", "--picture-seeds", seed, "--model", model, "-o", "alone.png")
    assert Path("000001.png").read_bytes() == Path("alone.png").read_bytes()


def test_settings_of_every_line(sjd, model):
    lines = [
        {"id": "one", "prompt": "car", "settings": {"temperature": 0, "scheduler": {"name": "sjd", "window": 3}}},
        {"id": "two", "prompt": "car", "seed": 4, "negative_prompt": "a dog"},
        {"id": "three", "prompt": "a cat", "settings": {"temperature": 0, "scheduler": {"name": "sjd", "window": 3}}},
    ]
    Path("lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = ("generate", "--prompts", "lines.jsonl", "--model", model, "--batch-size", 4, "--stats", "stats.json")
    status, out, _ = sjd(*run, "--guidance-scale", 2, "--scheduler", "seeded-jacobi", "--quiet")
    assert (status, out.split()) == (0, ["one.png", "three.png", "two.png", "stats.json"])
    records = json.loads(Path("stats.json").read_text())
    assert [record["scheduler"] for record in records] == ["sjd", "sjd", "seeded-jacobi"]
    one, two = remembered("one.png"), remembered("two.png")
    assert (one["settings"]["temperature"], two["settings"]["temperature"]) == (0, 1)
    assert one["settings"]["guidance_scale"] == two["settings"]["guidance_scale"] == 2
    assert (one["settings"]["scheduler"]["window"], two["negative_prompt"]) == (3, "a dog")


def test_prompts_of_standard_input_and_a_picture_to_standard_output(model, tmp_path):
    command = [sys.executable, "-m", "sjd_pipelines.cli", "generate", "--prompts", "-", "--model", model, "-o", "-"]
    finished = subprocess.run(command, input=b'{"prompt": "car", "seed": 3}\n', capture_output=True, cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, b"")
    with Image.open(io.BytesIO(finished.stdout)) as picture:
        assert (picture.format, picture.size) == ("PNG", (8, 8))
    assert list(tmp_path.iterdir()) == []


def test_a_size(sjd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "toy"
    toy_pipeline(4, 64).save_pretrained(folder)
    run = ("generate", "car", "--model", folder, "--seed", 1, "-o", "a.png")
    status, out, _ = sjd(*run, "--height", 8, "--width", 8)
    assert (status, out.startswith("a.png")) == (0, True)
    status, _, err = sjd(*run, "--height", 16)
    assert (status, err.count("\n")) == (2, 1)
    assert "16" in err


def test_what_is_finished_is_complete_when_somebody_interrupts(sjd, model, interrupting):
    extras = ("--grid", "sheet.png", "--gif", "forming.gif", "--stats", "stats.json")
    run = ("generate", "car", "a dog", "--model", model, "--seed", 1, "--num-images", 2, "--batch-size", 2, "--quiet")
    status, out, err = sjd(*run, "--scheduler", interrupting, *extras)
    assert (status, out, err) == (130, "car-1.png\ncar-2.png\n", "sjd: interrupted\n")
    assert files() == ["car-1.png", "car-2.png", "forming.gif", "sheet.png", "stats.json"]
    assert [record["seed"] for record in json.loads(Path("stats.json").read_text())] == [1, 2]
    with Image.open("sheet.png") as sheet:
        assert sheet.size == (20, 8)


def test_a_run_that_fails_in_the_middle_completes_what_is_finished(sjd, model, interrupting, monkeypatch):
    class Failing(SecondBatchScheduler):
        def plan(self, state, noise):
            try:
                return super().plan(state, noise)
            except KeyboardInterrupt as error:
                raise ArithmeticError("numbers that are not finite") from error

    monkeypatch.setitem(SCHEDULERS, interrupting, Failing)
    run = ("generate", "car", "--model", model, "--seed", 1, "--num-images", 2, "--scheduler", interrupting)
    status, _, err = sjd(*run, "--stats", "stats.json")
    assert (status, err) == (2, "sjd: error: numbers that are not finite\n")
    assert files() == ["car-1.png", "stats.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell's pipes")
def test_a_closed_pipe_is_quiet(model, tmp_path):
    command = [sys.executable, "-m", "sjd_pipelines.cli", "generate", "car", "--num-images", "3", "--model", model]
    with subprocess.Popen(
        [*command, "--stats", "stats.json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name.split("-")[0] for name in names] in ([], ["car", "stats.json"])  # the seed is printed first


@pytest.mark.parametrize("argv", [["schedulers"], ["draw", "--status", "nowhere"]])
def test_no_standard_output_at_all(monkeypatch, capsys, argv):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)  # as Python has it after `>&-`
        assert main(argv) == (2 if "nowhere" in argv else 0)
    assert capsys.readouterr().out == ""


ODD = {
    ("-o", "pipe"): "--output: pipe is not a folder.",
    ("-o", "pipe.png"): "--output pipe.png: is a pipe, not a regular file; name another one.",
    ("-o", "null.png"): "--output null.png: is a device, not a regular file; name another one.",
    ("-o", "locked.png"): "--output locked.png: is read-only; name another file, or make it writable.",
    ("-o", "around.png"): "--output around.png: Too many levels of symbolic links.",
    ("-o", "n" * 256 + ".png"): f"--output {'n' * 256}.png: File name too long.",
    ("-o", "n" * 300): f"--output: {'n' * 300}: File name too long.",
    ("-o", "~nosuchuser/a.png"): "argument -o/--output: ~nosuchuser/a.png: there is no user of that name.",
    ("-o", "zero\0byte.png"): "--output zero\0byte.png: embedded null byte.",
    ("-o", "-", "--num-images", "2"): "--output -: takes one picture, these are 2; name a folder.",
    ("--stats", "pipe"): "--stats pipe: is a pipe, not a regular file; name another one.",
    ("--grid", "around.png"): "--grid around.png: Too many levels of symbolic links.",
    ("--grid", "a.png", "--num-images", "20000"): "--grid: of 10000 pictures at most, these are 20000.",
    ("--gif", "a.gif", "--num-images", "101"): "--gif: of 100 pictures at most, these are 101.",
    ("--prompts", "prompts.txt"): "PROMPT, --prompts and --like exclude each other; give one of them.",
    ("--height", "0"): "argument --height: must be an integer from 1 to 16384, got 0",
    ("--picture-seeds", "1", "1", "--num-images", "2"): "dog-1.png is the file of two outputs; give them different",
}


@pytest.mark.parametrize("options", ODD, ids=lambda options: " ".join(options)[:40].replace("\0", ""))
def test_odd_outputs_are_refused_before_any_work(sjd, options):
    os.mkfifo("pipe")
    os.mkfifo("pipe.png")
    Path("null.png").symlink_to(os.devnull)
    Path("locked.png").touch(mode=0o444)
    Path("around.png").symlink_to("around.png")
    before = files()
    status, out, err = sjd("generate", "dog", "--model", "nowhere", *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"sjd: error: {' '.join(ODD[options].split(chr(10)))}")
    assert files() == before


def test_tables_that_are_refused(sjd):
    Path("twice.jsonl").write_text('{"prompt": "a", "id": "b"}\n' * 2)
    Path("ends.txt").write_text("dog\n\xff\n", encoding="latin-1")
    scheduler = {"name": "sjd", "windw": 8}
    Path("misspelt.jsonl").write_text(
        '{"prompt": "a"}\n' + json.dumps({"prompt": "a", "settings": {"scheduler": scheduler}})
    )
    Path("long.txt").write_text("dog\n" + "dog " * 61)
    last = {"prompt": "a", "picture_seed": 2**63 - 1}
    Path("last.jsonl").write_text('{"prompt": "a"}\n' + json.dumps(last))
    refused = {
        ("missing.txt",): "--prompts missing.txt: No such file or directory.",
        (".",): "--prompts .: Is a directory.",
        ("twice.jsonl",): "twice.jsonl: the id 'b' is there twice; give each row its own.",
        ("ends.txt",): "ends.txt, line 2: is not valid UTF-8 at byte 1.",
        (
            "misspelt.jsonl",
        ): "misspelt.jsonl, line 2: scheduler sjd has no setting 'windw'; it has window, initialise.",
        ("last.jsonl", "--num-images", "2"): "last.jsonl, line 2: picture_seed of picture 2 must be an integer from 0",
        ("long.txt",): "long.txt, row 000002: prompt: 'dog dog dog dog dog dog dog dog dog dog …' takes 65 tokens",
        ("long.txt", "--picture-seeds", "1"): "--picture-seeds is for prompts on the command line; a table has",
    }
    for options, words in refused.items():
        status, out, err = sjd("generate", "--prompts", *options)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"sjd: error: {words}")
    assert files() == ["ends.txt", "last.jsonl", "long.txt", "misspelt.jsonl", "twice.jsonl"]
