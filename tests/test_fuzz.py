"""Command lines and files as nobody would write them: never a traceback, never a hang, nothing left behind.

Seeded, so that what fails can be tried again: every case is a function of its number.
"""

import json
import os
import random
import shlex
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from sjd_pipelines import FLOW_SOLVERS, SCHEDULERS
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.cli import main
from sjd_pipelines.disk import TEMPORARY

IN_PROCESS, PROCESSES = 10_000, 200
SECONDS = 20
STATUSES = {0, 1, 2, 130, 141}
WORDS = (
    *("", " ", "-", "--", "-1", "0", "1", "2", "3", "1e9", "1e400", "nan", "inf", "-inf", "9" * 40, "9" * 5000),
    *("auto", "none", "None", "true", "[]", "{}", '{"a": 1}', "a=b", "=", "window=3", "window=", "tolerance=1e-3"),
    *("a.png", "a.jpg", "b.gif", "c.json", "missing/a.png", "folder", "folder/", "pipe", "pipe.png", "locked.png"),
    *("around.png", "null.png", ".", "..", "/", "/dev/null", "/proc/a.png", "~", "~nobody/a", "n" * 300),
    *("n" * 252 + ".png", "car", "a red dog", "ä", "\udcff", "\ud800", "\0", "\n", "a\nb", "%s", "{0}", "'", '"'),
    *("🦊" * 30, "<image>", "float16", "bfloat16", "cpu", "cuda", "cuda:99", "mps", "meta", "hpu", "xla", "abacus"),
    *("prompts.txt", "table.csv", "lines.jsonl", "drawn.png", "job", "prompts", "emoji-flow", "emoji-par", "nowhere"),
    *("owner/name", "./folder", "--help", *SCHEDULERS, *FLOW_SOLVERS),
)
OPTIONS = {
    "generate": (
        *("--num-images", "--batch-size", "--seed", "--picture-seeds", "--scheduler", "--window", "--set", "--height"),
        *("--width", "--negative-prompt", "--guidance-scale", "--temperature", "--top-k", "--top-p", "-o", "--grid"),
        *("--gif", "--stats", "--quiet", "--prompts", "--like", "--device", "--dtype"),
    ),
    "draw": (
        *("-o", "--status", "--workers", "--threads", "--retry-failed", "--batch-size", "--height", "--scheduler"),
        *("--set", "--window", "--temperature", "--negative-prompt", "--device"),
    ),
    "info": ("--dtype", "--json"),
    "verify": ("--schedulers", "--windows", "--samples", "--json", "--threads"),
    "schedulers": ("--json",),
    "convert": ("--reverse", "--dtype", "--vq-file", "--image-size", "--noise-std", "--resolution"),
    "benchmark": ("--schedulers", "--windows", "--prompts", "--repeats", "--json", "--report", "--threads"),
}
READERS = {
    "prompts.txt": ("generate", "--prompts", "prompts.txt", "--model", "nowhere"),
    "table.csv": ("draw", "table.csv", "-o", "job", "--model", "nowhere", "--workers", "0"),
    "lines.jsonl": ("generate", "--prompts", "lines.jsonl", "--model", "nowhere"),
    "drawn.png": ("generate", "--like", "drawn.png", "--model", "nowhere"),
    "toy/model_index.json": ("info", "./toy"),
    "toy/scheduler/scheduler_config.json": ("info", "./toy"),
}  # fmt: skip


FILES = tuple(READERS)
INSERTS = (b"\xff", b"\0", b"[", b"{", b'"', b",", b"\n", b"NaN", b"1e999", b"[" * 5000)


class HangError(BaseException):
    """Nothing may catch it but the test."""


@contextmanager
def limited(seconds):
    def ring(*_):
        raise HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def odd(tmp_path, monkeypatch, sjd):
    """A folder of things to stumble over, the current one."""
    toy_pipeline(4, 64).save_pretrained(tmp_path / "toy")
    sjd("generate", "car", "--model", "./toy", "--seed", 1, "-o", "drawn.png", "--quiet")
    os.mkfifo("pipe")
    os.mkfifo("pipe.png")
    Path("null.png").symlink_to(os.devnull)
    Path("around.png").symlink_to("around.png")
    Path("locked.png").touch(mode=0o444)
    Path("folder").mkdir()
    Path("prompts.txt").write_text("car\na dog\n")
    Path("table.csv").write_text('id,prompt,seed,settings\n1,car,3,"{""top_k"": 3}"\n2,a dog,,\n')
    Path("lines.jsonl").write_text('{"id": "a", "prompt": "car", "settings": {"scheduler": {"name": "sjd"}}}\n' * 1)
    return tmp_path


def state(folder):
    """What is there, and of what is no regular file what it is."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        odd = not stat.S_ISREG(mode) or path.name == "locked.png"
        found[path.relative_to(folder).as_posix()] = (stat.S_IFMT(mode), path.lstat().st_ino) if odd else None
    return found


def command_line(number):
    chance = random.Random(number)
    command = chance.choice((*OPTIONS, "generate", "generate", "draw"))
    words = [chance.choice(WORDS) for _ in range(chance.randrange(3))]
    for _ in range(chance.randrange(5)):
        option = chance.choice(OPTIONS[command])
        words += [f"{option}={chance.choice(WORDS)}"] if chance.random() < 0.2 else [option, chance.choice(WORDS)]
    if chance.random() < 0.05:
        words.insert(chance.randrange(len(words) + 1), chance.choice(("--nothing", "-x", "--model", "--")))
    safe = {"benchmark": ["--model", "nowhere"], "verify": ["--samples", "0"]}.get(command, [])
    return [command, *(["--model", "nowhere"] if command in ("generate", "draw") else safe), *words]


def damaged(content, chance):
    """Bytes that were a file."""
    data = bytearray(content)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                del data[at:]
            case 1:
                data[at:at] = chance.choice(
                    (b"\xff", b"\0", b"[", b"{", b'"', b",", b"\n", b"NaN", b"1e999", b"[" * 5000)
                )
            case 2 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 3:
                data[at : at + chance.randrange(20)] = b""
            case 4:
                data[at:at] = data[: chance.randrange(200)]
            case _:
                data[at : at + 5] = chance.choice((b"null", b"3", b"[]", b"{}", b'"x"', b"-1", b"9" * 30))
    return bytes(data)


def problem(status, out, err, before, after):
    """What is wrong with how a command ended; None if nothing is."""
    if status not in STATUSES:
        return f"status {status}"
    if "Traceback" in err or "Exception ignored" in err:
        return "a traceback"
    if status == 2 and (err.count("\n") != 1 or not err.startswith("sjd: error: ") or len(err) > 3000):
        return f"no line: {err[:300]!r}"
    if any(Path(name).name.startswith(TEMPORARY) for name in after):
        return "something half-written"
    if any(after.get(name) != kind for name, kind in before.items()):
        return f"changed: {[name for name, kind in before.items() if after.get(name) != kind]}"
    if status == 2 and after.keys() - before.keys():
        return f"left: {sorted(after.keys() - before.keys())}"
    return None


def run_here(argv, capsys):
    capsys.readouterr()
    try:
        with limited(SECONDS):
            status = main(argv)
    except SystemExit as stop:
        status = stop.code
    except HangError:
        status = f"hangs for {SECONDS} s"
    except BaseException as error:  # what no command may raise
        status = f"raises {type(error).__name__}: {str(error)[:200]}"
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def tidy(folder, before):
    for name in sorted(state(folder).keys() - before.keys(), reverse=True):
        path = folder / name
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def failures(folder, capsys, count):
    """What goes wrong of so many cases, half of them command lines and half damaged files."""
    before, wrong = state(folder), []
    contents = {name: (folder / name).read_bytes() for name in FILES}
    for number in range(count):
        chance, name = random.Random(f"file {number}"), None
        argv = command_line(number)
        if number % 2:
            name = chance.choice(FILES)
            (folder / name).write_bytes(damaged(contents[name], chance))
            argv = list(READERS[name])
        found = problem(*run_here(argv, capsys), before, state(folder))
        if found:
            wrong.append(f"{number}: {shlex.join(argv)[:300]!r}: {found}")
        tidy(folder, before)
        if name:
            (folder / name).write_bytes(contents[name])
    return wrong


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes in folders")
def test_a_few_odd_commands_and_files(odd, capsys):
    wrong = failures(odd, capsys, 300)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes in folders")
def test_many_odd_commands_and_files(odd, capsys):
    wrong = failures(odd, capsys, IN_PROCESS)
    assert not wrong, "\n".join(wrong)


STARTED = (
    "import os, sys\nfrom sjd_pipelines.cli import main\nos.close(int(sys.argv[1]))\nsys.exit(main(sys.argv[2:]))"
)


def run_there(argv, chance):
    """As a process that is left alone, interrupted, or printing to nobody: status, output, errors."""
    hand, mouth = os.pipe()
    command = [sys.executable, "-c", STARTED, str(mouth), *argv]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[mouth]
    ) as process:
        os.close(mouth)
        os.read(hand, 1)  # nothing comes: it has closed its end, and `main` begins
        os.close(hand)
        try:
            match chance.randrange(3):
                case 0:
                    process.stdout.close()
                    process.stdout = None
                case 1:
                    try:
                        process.wait(chance.random() * 6)
                    except subprocess.TimeoutExpired:
                        process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=6 * SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return "hangs", "", ""
    return process.returncode, out or b"", err.decode("utf-8", "replace")


def processes_that_fail(folder, count):
    before, wrong = state(folder), []
    for number in range(count):
        chance = random.Random(f"process {number}")
        argv = [word for word in command_line(number) if "\0" not in word and "\ud800" not in word]
        if chance.random() < 0.7:
            extras = ["--stats", "c.json", "--grid", "grid.png", "-o", "out/"]
            argv = ["generate", "car", "a dog", "--num-images", "20", "--model", "./toy", *extras]
        status, out, err = run_there(argv, chance)
        after = state(folder)
        found = problem(status, out, err, before, after)
        if found is None and (folder / "c.json").exists():
            found = incomplete(folder)
        if found:
            wrong.append(f"{number}: {shlex.join(argv)[:300]!r}: {found}")
        tidy(folder, before)
    return wrong


def incomplete(folder):
    """What is missing of the pictures that the statistics have."""
    records = json.loads((folder / "c.json").read_text())
    pictures = list((folder / "out").iterdir())
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
    # The one that was being written when the interrupt came may have its file and no record.
    return None if len(records) <= len(pictures) <= len(records) + 1 else f"{len(records)} of {len(pictures)}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_odd_processes(odd):
    wrong = processes_that_fail(odd, PROCESSES)
    assert not wrong, "\n".join(wrong)
