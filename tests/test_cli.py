"""The command line on a toy model: files, statistics, errors, exit statuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sjd_pipelines import FLOW_SOLVERS, SCHEDULERS, SeededJacobiScheduler, __version__, cli
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.bundled import BUNDLED
from sjd_pipelines.cli import main
from sjd_pipelines.cli.files import replacing

TOKENS = 16
SIDE = 8  # pixels


def files():
    return sorted(path.name for path in Path().iterdir())


def opened(path):
    with Image.open(path) as picture:
        return picture.format, picture.size


def pixels(path):
    with Image.open(path) as picture:
        return picture.tobytes()


class ThreePassScheduler(SeededJacobiScheduler):
    """Somebody presses Ctrl-C in the fourth pass."""

    def plan(self, state, noise):
        if state.passes == 3:
            raise KeyboardInterrupt
        return super().plan(state, noise)


@pytest.mark.parametrize(
    "start", [["-m", "sjd_pipelines.cli"], ["-I", str(Path(cli.__file__).parent)]], ids=["module", "folder"]
)
def test_version_from_the_module(start, tmp_path):
    command = [sys.executable, *start, "--version"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert finished.stdout == f"sjd {__version__}\n"


@pytest.mark.parametrize("command", [[], ["generate"], ["schedulers"], ["benchmark"], ["verify"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: sjd", *command]))


def test_a_prompt_becomes_a_picture(sjd, model):
    status, out, err = sjd("generate", "A red dog!", "--model", model, "--seed", 3)
    assert (status, err) == (0, "sjd: This model does not know 'A' (close: a), 'dog!' (close: dog).\n")
    assert out.startswith(f"a-red-dog-3.png  {TOKENS} tokens in {TOKENS} forward passes, ")
    assert files() == ["a-red-dog-3.png"]
    assert opened("a-red-dog-3.png") == ("PNG", (SIDE, SIDE))


def test_pictures_depend_on_their_seed_alone(sjd, model):
    run = ("generate", "a red dog", "two cats", "--model", model, "--quiet")
    names = ["a-red-dog-5.png", "a-red-dog-6.png", "two-cats-7.png", "two-cats-8.png"]
    status, out, _ = sjd(*run, "--num-images", 2, "--seed", 5, "-o", "one")
    assert (status, out.split()) == (0, [str(Path("one", name)) for name in names])
    sjd(*run, "--num-images", 2, "--seed", 5, "-o", "batch", "--batch-size", 3, "--scheduler", "seeded-jacobi")
    sjd("generate", "two cats", "--model", model, "--seed", 8, "-o", "alone.png")
    assert Path("one", names[3]).read_bytes() == Path("alone.png").read_bytes()
    pictures = [pixels(Path("one", name)) for name in names]
    assert pictures == [pixels(Path("batch", name)) for name in names]
    assert len(set(pictures)) == 4


def test_a_random_seed_is_printed_and_draws_the_picture_again(sjd, model):
    _, out, _ = sjd("generate", "car", "--model", model, "-o", "a.png")
    seed = out.split()[1]
    sjd("generate", "car", "--model", model, "-o", "b.png", "--seed", seed)
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_a_recorded_picture_seed_draws_the_picture_again(sjd, model):
    run = ("generate", "car", "a red dog", "--model", model, "--quiet")
    sjd(*run, "--seed", 1, "--stats", "stats.json")
    records = json.loads(Path("stats.json").read_text())
    seeds = [record["picture_seed"] for record in records]
    again = ("--picture-seeds", *seeds, "--batch-size", 2, "--stats", "again.json")
    status, out, _ = sjd(*run, *again)
    assert (status, out.split()) == (0, [f"car-{seeds[0]}.png", f"a-red-dog-{seeds[1]}.png", "again.json"])
    assert Path("car-1.png").read_bytes() == Path(f"car-{seeds[0]}.png").read_bytes()
    assert Path("a-red-dog-2.png").read_bytes() == Path(f"a-red-dog-{seeds[1]}.png").read_bytes()
    records = json.loads(Path("again.json").read_text())
    assert [(record["seed"], record["picture_seed"]) for record in records] == [(None, seed) for seed in seeds]


def test_unknown_words_are_named_once_a_run_and_never_on_standard_output(sjd, model):
    run = ("generate", "a lemon", "--model", model, "--num-images", 3, "--quiet", "--negative-prompt", "bluee")
    status, out, err = sjd(*run, "-o", "a.png")
    line = "sjd: This model does not know 'lemon', 'bluee' (close: blue); `sjd info` of it lists its words.\n"
    assert (status, out, err) == (0, "a-0.png\na-1.png\na-2.png\n", line)
    _, _, err = sjd(*run, "-o", "a.png", "--guidance-scale", 1)
    assert "bluee" not in err
    _, out, _ = sjd("info", model)
    assert "all 16 words: <assistant>, <user>, a, blue, car, cat, dog, green, house, " in out


def test_what_the_bundled_model_knows(sjd):
    _, out, _ = sjd("info")
    assert "\nobjects: dog (puppy), cat (kitten), lion," in out
    assert "\nbackgrounds: red, orange," in out
    assert "\ncounts: one (1), two (2, a pair of), three (3)\n" in out
    assert "\nrelations: left of (to the left of, on the left of), " in out
    assert "\nall 170 words: 1, 2, 3, a, above, " in out


def test_a_prompt_that_is_too_long_is_refused_before_any_picture(sjd):
    status, out, err = sjd("generate", "a dog", "dog " * 61)
    assert (status, out, files()) == (2, "", [])
    assert err == (
        "sjd: error: prompt: 'dog dog dog dog dog dog dog dog dog dog …' takes 65 tokens, with what this model puts "
        "around it, and 64 are the most it reads; shorten it by 1.\n"
    )


def test_statistics(sjd, model):
    options = ("--scheduler", "sjd", "--window", 4, "--set", "initialise=uniform", "--batch-size", 2)
    sjd(
        "generate", "car", "a dog", "--model", model, "--seed", 1, *options, "--stats", "stats.json", "-o", "pictures/"
    )
    records = json.loads(Path("stats.json").read_text())
    assert [(record["prompt"], record["seed"]) for record in records] == [("car", 1), ("a dog", 2)]
    for record in records:
        assert set(record) == {
            "prompt", "seed", "picture_seed", "scheduler", "label", "tokens", "forward_passes", "prompt_passes",
            "seconds", "committed_per_pass", "windows", "acceptance_map",
        }  # fmt: skip
        assert (record["scheduler"], record["label"], record["tokens"]) == ("sjd", "lossless", TOKENS)
        assert record["prompt_passes"] == 1
        assert set(record["seconds"]) == {"encode", "decode", "pixels"}
        assert sum(record["committed_per_pass"]) == TOKENS
        assert len(record["committed_per_pass"]) == len(record["windows"]) == record["forward_passes"] <= TOKENS
        assert max(record["windows"]) == 4
        assert [len(row) for row in record["acceptance_map"]] == [4] * 4
        assert max(map(max, record["acceptance_map"])) == record["forward_passes"] - 1


def test_sheet_animation_and_numbered_files(sjd, model):
    extras = ("--grid", "sheet.png", "--gif", "forming.gif", "--stats", "stats.json")
    status, out, _ = sjd("generate", "car", "--model", model, "--num-images", 3, "-o", "car.jpg", *extras)
    assert status == 0
    assert files() == ["car-0.jpg", "car-1.jpg", "car-2.jpg", "forming.gif", "sheet.png", "stats.json"]
    assert out.splitlines()[-3:] == ["sheet.png", "forming.gif", "stats.json"]
    assert opened("car-0.jpg") == ("JPEG", (SIDE, SIDE))
    assert opened("sheet.png") == ("PNG", (2 * SIDE + 4, 2 * SIDE + 4))
    with Image.open("forming.gif") as animation:
        assert animation.size == (2 * SIDE + 4, 2 * SIDE + 4)
        assert 1 < animation.n_frames <= TOKENS


def test_the_window_alone_changes_the_checkpoints_scheduler(sjd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "windowed"
    toy_pipeline(4, 64, scheduler=SeededJacobiScheduler(initialise="uniform")).save_pretrained(folder)
    status, _, err = sjd("generate", "car", "--model", folder, "--window", 3, "--stats", "stats.json", "--quiet")
    assert (status, err) == (0, "")
    (record,) = json.loads(Path("stats.json").read_text())
    assert record["scheduler"] == "seeded-jacobi"
    assert max(record["committed_per_pass"]) <= 4


def test_the_window_may_be_left_to_speed(sjd, model):
    sjd("generate", "car", "--model", model, "--seed", 1, "-o", "one.png")
    run = ("generate", "car", "--model", model, "--seed", 1, "--scheduler", "seeded-jacobi", "--stats", "stats.json")
    status, _, err = sjd(*run, "--window", "auto", "-o", "auto.png", "--quiet")
    assert (status, err) == (0, "")
    assert pixels("auto.png") == pixels("one.png")
    (record,) = json.loads(Path("stats.json").read_text())
    assert max(record["windows"]) <= TOKENS // 2
    status, _, err = sjd(*run[:6], "--scheduler", "pjd", "--window", "auto", "-o", "auto.png")
    assert (status, err) == (2, "sjd: error: scheduler pjd: window must be an integer from 1 to 65536, got 'auto'.\n")


BAD_INPUT = {
    ("generate", " "): "prompt 1 is empty; say what to draw.",
    ("generate", "car", ""): "prompt 2 is empty; say what to draw.",
    ("generate", "car\udcff"): "prompt 1 is not valid text: '\\udcff' at character 4.",
    ("generate", "car", "--negative-prompt", "\ud800"): "negative_prompt is not valid text: '\\ud800' at character 1.",
    ("generate",): "the following arguments are required: PROMPT",
    (): "the following arguments are required: COMMAND",
    ("generate", "car", "--window", "-1"): "argument --window: must be an integer from 0 to 65536 or 'auto', got -1",
    ("generate", "car", "--scheduler", "sjd", "--window", "0"): (
        "scheduler sjd: window must be an integer from 1 to 65536 or 'auto', got 0."
    ),
    ("generate", "car", "--num-images", "x"): "argument --num-images: must be an integer from 1 to 1000000, got 'x'",
    ("generate", "car", "--num-images", "1000000000"): (
        "argument --num-images: must be an integer from 1 to 1000000, got 1000000000"
    ),
    ("generate", "car", "--num-images=--"): "argument --num-images: expected a value, got '--'",
    ("generate", "car", "--batch-size", "1" + "0" * 5000): (
        f"argument --batch-size: must be an integer from 1 to 65536, got '1{'0' * 16}...{'0' * 18}'"
    ),
    ("benchmark", "--threads", "1000000"): "argument --threads: must be an integer from 1 to ",
    ("generate", "car", "--seed", "-1"): "argument --seed: must be an integer from 0 to 2**63 - 1, got -1",
    ("generate", "car", "dog", "--seed", str(2**63 - 1)): (
        f"--seed {2**63 - 1}: the seeds of 2 pictures must stay below 2**63."
    ),
    ("generate", "car", "--picture-seeds", "1", "2"): "--picture-seeds: got 2 for 1 pictures; give one for each.",
    ("generate", "car", "--seed", "1", "--picture-seeds", "2"): (
        "argument --picture-seeds: not allowed with argument --seed"
    ),
    ("generate", "car", "--scheduler", "magic"): (
        f"unknown scheduler 'magic'; known are {', '.join(SCHEDULERS)}; of flows {', '.join(FLOW_SOLVERS)}."
    ),
    ("generate", "car", "--scheduler", "sdj"): "unknown scheduler 'sdj'; did you mean sjd.",
    ("verify", "--schedulers", "FrontierFlowSolver"): "unknown scheduler 'FrontierFlowSolver'; did you mean frontier.",
    ("generate", "car", "--scheduler", "autoregressive", "--window", "4"): (
        "scheduler autoregressive has no setting 'window'; it has none."
    ),
    ("generate", "car", "--scheduler", "sjd", "--set", "speed=9"): (
        "scheduler sjd has no setting 'speed'; it has window, initialise."
    ),
    ("generate", "car", "--scheduler", "sjd", "--set", "window"): "--set window: must have the form KEY=VALUE.",
    ("generate", "car", "--scheduler", "sjd", "--set", "window=big"): (
        "scheduler sjd: window must be an integer from 1 to 65536 or 'auto', got 'big'."
    ),
    ("generate", "car", "--scheduler", "sjd", "--window", "2", "--set", "window=3"): (
        "--set window=3: window is given twice."
    ),
    ("generate", "car", "--scheduler", "coupled-sjd", "--set", "coupling=loose"): (
        "scheduler coupled-sjd: coupling must be one of maximal, gumbel; got 'loose'."
    ),
    ("generate", "car", "--set", "window=3"): (
        "--set needs --scheduler: it belongs to the scheduler that you name."
    ),
    ("generate", "car", "--top-p", "0"): "top_p must be a number above 0, at most 1, got 0.0.",
    ("generate", "car", "--guidance-scale", "1e300"): "guidance_scale must be a number from 0 to 1000, got 1e+300.",
    ("generate", "car", "--temperature", "9" * 500): "temperature must be 0 or a number from 1e-06 to 1000, got inf.",
    ("generate", "car", "--temperature", "warm"): "argument --temperature: must be a number, got 'warm'",
    ("generate", "car", "--temperature", "nan"): (
        "temperature must be 0 or a number from 1e-06 to 1000, got nan."
    ),
    ("generate", "car", "--device", "abacus"): "--device: device must be one of this machine's, cpu",
    ("generate", "car", "--device", "meta"): "--device: device must be one of this machine's, cpu",
    ("generate", "car", "-o", "missing/a.png"): "--output: the folder missing does not exist.",
    ("generate", "car", "-o", "missing/folder/"): "--output: the folder missing does not exist.",
    ("generate", "car", "-o", "file.txt/a.png"): "--output: file.txt is not a folder.",
    ("generate", "car", "-o", "a.txt"): "--output a.txt: must end in .png, .jpg, .jpeg, .webp.",
    ("generate", "car", "-o", "folder.png"): (
        "--output folder.png: is a folder; name a file, or end the name with a slash."
    ),
    ("generate", "car", "--grid", "grid.gif"): "--grid grid.gif: must end in .png, .jpg, .jpeg, .webp.",
    ("generate", "car", "--gif", "forming.png"): "--gif forming.png: must end in .gif.",
    ("generate", "car", "--stats", "folder.png"): "--stats folder.png: is a folder; name a file.",
    ("generate", "car", "--stats", "missing/a.json"): "--stats: the folder missing does not exist.",
    ("generate", "car", "-o", "a.png", "--grid", "a.png"): "a.png is the file of two outputs; give them different",
    ("schedulers", "early-exist"): "unknown scheduler 'early-exist'; did you mean early-exit.",
    ("benchmark", "--schedulers", "magic"): f"unknown scheduler 'magic'; known are {', '.join(SCHEDULERS)}.",
    ("benchmark", "--windows", "4", "0"): "argument --windows: must be an integer from 1 to 65536 or 'auto', got 0",
    ("benchmark", "--json", "missing/a.json"): "--json: the folder missing does not exist.",
    ("verify", "--schedulers", "magic"): (
        f"unknown scheduler 'magic'; known are {', '.join(SCHEDULERS)}; of flows {', '.join(FLOW_SOLVERS)}."
    ),
    ("verify", "--windows", "4096"): "scheduler eagle: window must be an integer from 1 to 1024, got 4096.",
    ("step-cost", "--window", str(10**30)): (
        "argument --window: must be an integer from 1 to 65536, got an integer of 31 digits"
    ),
    ("benchmark", "--report", "report", "--windows", "4096"): (
        "scheduler eagle: window must be an integer from 1 to 1024, got 4096."
    ),
    ("benchmark", "--report", "n" * 300): f"--report: {'n' * 300}: File name too long.",
    ("verify", "--samples", "0"): "argument --samples: must be an integer from 1 to 1000000, got 0",
    ("verify", "--json", "pipe"): "--json pipe: is a pipe, not a regular file; name another one.",
    ("verify", "--json", "locked.txt"): "--json locked.txt: is read-only; name another file, or make it writable.",
    ("verify", "--json=plain/"): "argument --json: must be the name of a file, got 'plain/'",
    ("info", "--json", "n" * 300): f"--json {'n' * 300}: File name too long.",
    ("info", "~nosuchuser"): "argument MODEL: ~nosuchuser: there is no user of that name.",
    ("info", "--json", "~nosuchuser/a.json"): "argument --json: ~nosuchuser/a.json: there is no user of that name.",
}  # fmt: skip


@pytest.mark.parametrize("argv", BAD_INPUT, ids=" ".join)
def test_bad_input_is_one_line_before_the_model_is_sought(sjd, argv):
    Path("folder.png").mkdir()
    Path("file.txt").touch()
    Path("locked.txt").touch(mode=0o444)
    os.mkfifo("pipe")
    model = ("--model", "nowhere") if argv and argv[0] in ("generate", "benchmark") else ()
    status, out, err = sjd(*argv, *model)
    assert (status, out) == (2, "")
    assert err.startswith(f"sjd: error: {BAD_INPUT[argv]}")
    assert err.count("\n") == 1
    assert files() == ["file.txt", "folder.png", "locked.txt", "pipe"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write in")
def test_a_folder_that_cannot_be_written_in(sjd):
    status, _, err = sjd("generate", "car", "--model", "nowhere", "-o", "/proc/a.png")
    assert status == 2
    assert err.startswith("sjd: error: --output: cannot write in the folder /proc: ")


def test_a_model_that_is_not_there(sjd, model):
    status, _, err = sjd("generate", "car", "--model", "nowhere")
    assert (status, err) == (
        2,
        f"sjd: error: cannot load the model: nowhere is neither a bundled model ({', '.join(BUNDLED)}) nor a folder; "
        "a hub id has the form owner/name.\n",
    )  # fmt: skip
    status, _, err = sjd("generate", "car", "--model", model, "--window", 4)
    assert (status, err) == (2, "sjd: error: scheduler autoregressive has no setting 'window'; it has none.\n")
    assert files() == []


def test_an_interrupted_run_leaves_nothing(sjd, model, monkeypatch):
    monkeypatch.setitem(SCHEDULERS, "three-passes", ThreePassScheduler)
    extras = ("--grid", "sheet.png", "--gif", "forming.gif", "--stats", "stats.json", "--seed", 1)
    status, out, err = sjd("generate", "car", "--model", model, "--scheduler", "three-passes", *extras)
    assert (status, out, err) == (130, "", "sjd: interrupted\n")
    assert files() == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_and_stop():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "new")]


def test_schedulers(sjd):
    _, out, _ = sjd("schedulers", "--json")
    entries = {entry.pop("name"): entry for entry in json.loads(out)}
    assert list(entries) == [*SCHEDULERS, *FLOW_SOLVERS]
    assert entries["sjd"] == {
        "class": "SJDScheduler",
        "label": "lossless",
        "paper": "Teng et al. 2024, arXiv 2410.01699",
        "settings": {"window": 16, "initialise": "law-above"},
        "for": "autoregressive",
    }
    assert entries["frontier"]["settings"] == {"tolerance": 1e-6, "window": None, "start": "latents"}
    _, out, _ = sjd("schedulers")
    tables = out.split("\n\n")
    for text, registry in zip(tables, (SCHEDULERS, FLOW_SOLVERS), strict=True):
        assert [line.split()[0] for line in text.splitlines()[2:]] == list(registry)
    _, out, _ = sjd("schedulers", "early-exit", "sjd")
    assert {line.split()[0] for line in out.splitlines()[2:]} == {"sjd", "early-exit"}
    _, out, _ = sjd("schedulers", "frontier")
    assert out.splitlines()[0].startswith("flow solver")
    assert len(out.splitlines()) == 3


@pytest.mark.slow
def test_compiled_passes(sjd, model):
    drawn = ["generate", "car", "--model", model, "--seed", 3, "--scheduler", "autoregressive", "--device", "cpu"]
    assert sjd(*drawn, "-o", "written.png")[0] == 0
    drawn += ["-o", "compiled.png", "--compile", "--stats", "stats.json"]
    # Compilers want a standard output of their own.
    subprocess.run([sys.executable, "-m", "sjd_pipelines.cli", *map(str, drawn)], check=True, capture_output=True)
    assert pixels("written.png") == pixels("compiled.png")
    (record,) = json.loads(Path("stats.json").read_text())
    assert record["execution"]["graphs"] > 0
    assert record["execution"]["seconds"] > 0
    assert record["execution"]["replayed"] > record["execution"]["as_recorded"] == 0


def test_a_flow_is_not_compiled(sjd, flow_model):
    status, _, err = sjd("generate", "0", "--model", flow_model, "--compile")
    assert (status, err) == (2, "sjd: error: --compile does not apply to a flow, which draws no tokens.\n")
