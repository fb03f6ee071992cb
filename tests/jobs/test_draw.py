"""Jobs: what they write, that they go on, and that nothing that happens to them is seen in the pictures."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.cli.measuring import torch_threads
from sjd_pipelines.jobs.driver import Job, run_job
from sjd_pipelines.jobs.folder import JobError, JobFolder
from sjd_pipelines.jobs.table import Table
from sjd_pipelines.jobs.work import Work, Worker

from .conftest import pictures, write_table

ROWS = 24


@pytest.fixture(scope="module")
def undisturbed(model, tmp_path_factory):
    """Name -> digest of the pictures of a job that nothing happened to, drawn in this process."""
    place = tmp_path_factory.mktemp("undisturbed")
    work = Work(place / "out", model)

    class Here:
        def draw(self, batches):
            worker = Worker(work)
            return (worker.draw(batch) for batch in batches)

    with Table(write_table(place / "a.jsonl", ROWS)) as table, torch_threads(work.threads):
        status = run_job(Job(table, work, batch_size=4), Here())
    assert (status.drawn, status.failed, status.missing) == (ROWS, 0, 0)
    return pictures(place / "out")


def stamps(folder):
    """What tells whether a settled picture has been written again."""
    records = folder.glob("pictures/*/[!.]*.json")  # not those that are still written
    return {path.stem: (path.stat().st_ino, path.stat().st_mtime_ns) for path in records}


def test_a_job_from_the_command_line(sjd, model, undisturbed):
    write_table(Path("a.jsonl"), ROWS)
    run = ("draw", "a.jsonl", "-o", "out", "--model", model, "--batch-size", 4)
    status, out, err = sjd(*run, "--workers", 2)
    assert (status, out, err) == (0, f"{ROWS} of {ROWS} drawn, 0 failed, 0 to be drawn\nout/sheet.png\n", "")
    assert pictures(Path("out")) == undisturbed
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "job.json", "lock", "model.json", "pictures", "sheet.png", "summary.json",
    ]  # fmt: skip
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["rows"], summary["drawn"], summary["forward_passes"]) == (ROWS, ROWS, 16 * ROWS)
    with Image.open("out/sheet.png") as sheet:
        assert sheet.size == (5 * 8 + 4 * 4, 5 * 8 + 4 * 4)
    assert sjd("draw", "--status", "out")[:2] == (0, f"{ROWS} of {ROWS} drawn, 0 failed, 0 to be drawn\n")
    before = stamps(Path("out"))
    assert sjd(*run, "--quiet") == (0, "", "")
    assert stamps(Path("out")) == before
    picture = next(Path("out").glob("pictures/*/p7.png"))
    sjd("generate", "--like", picture, "--model", model, "-o", "again.png", "--quiet")
    assert Path("again.png").read_bytes() == picture.read_bytes()


def test_words_that_the_model_does_not_know_are_named_once_a_job(sjd, model):
    Path("a.txt").write_text("car\na lemon\na red lemon\na yelow dog\n")
    run = ("draw", "a.txt", "-o", "out", "--model", model, "--quiet", "--negative-prompt", "lemon")
    words = [line.split("'")[1::2] for line in sjd(*run)[2].splitlines()]
    assert words == [["lemon"], ["yelow", "lemon"]]
    _, out, err = sjd("generate", "a lemon", "--model", model, "--quiet", "-o", "a.png")
    assert (out, err) == ("a.png\n", "sjd: This model does not know 'lemon'; `sjd info` of it lists its words.\n")


def test_what_can_not_be_drawn_is_recorded_and_stops_nothing(sjd, model):
    rows = [{"id": f"p{number}", "prompt": "car"} for number in range(6)]
    rows[1]["height"] = 4096
    rows[3]["settings"] = {"scheduler": {"name": "sjd", "window": 0}}
    rows[4] |= {"id": "long", "prompt": "dog " * 600}
    Path("a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = ("draw", "a.jsonl", "-o", "out", "--model", model, "--batch-size", 8)
    status, out, err = sjd(*run)
    assert (status, err) == (1, "")
    assert out.startswith("3 of 6 drawn, 3 failed, 0 to be drawn\n")
    assert "1 x scheduler sjd: window must be an integer from 1 to 65536" in out
    error = json.loads(next(Path("out").glob("pictures/*/long.error")).read_text())["error"]
    assert error.startswith("prompt: 'dog dog")
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["failed"], summary["failures"]) == (3, ["p1", "p3", "long"])
    assert sjd(*run)[:2] == (1, out)
    before = stamps(Path("out"))
    next(Path("out").glob("pictures/*/p0.json")).unlink()
    assert sjd(*run, "--retry-failed")[:2] == (1, out)
    assert {name for name, stamp in stamps(Path("out")).items() if before[name] != stamp} == {"p0"}


REFUSED = {
    ("--batch-size", "3"): "out is the folder of another job, with batch_size 4, not 3; repeat its command, or name",
    ("--seed", "3"): "unrecognized arguments: --seed 3",
    ("--temperature", "0.5"): 'out is the folder of another job, with defaults {}, not {"settings": {"temperature":',
    ("--scheduler", "magic"): "unknown scheduler 'magic'; known are",
    ("--workers", "0"): "argument --workers: must be an integer from 1 to 1024, got 0",
    ("--status", "out"): "--status takes nothing else: it looks at a folder and draws nothing.",
    ("-o", "nowhere/out"): "the folder nowhere does not exist.",
    ("-o", "a.jsonl"): "a.jsonl is not a folder.",
    ("-o", "full"): "full holds other files than a job; name a new or an empty folder.",
    ("-o", "n" * 300): f"{'n' * 300}: File name too long.",
}


def test_jobs_that_are_refused(sjd, model, tmp_path_factory):
    write_table(Path("a.jsonl"), 2)
    write_table(Path("b.jsonl"), 3)
    Path("full").mkdir()
    Path("full/notes.txt").touch()
    run = ("draw", "a.jsonl", "-o", "out", "--model", model, "--batch-size", 4)
    assert sjd(*run)[0] == 0
    before = stamps(Path("out"))
    for options, words in REFUSED.items():
        status, out, err = sjd(*run, *options)
        assert (status, out, err.count("\n")) == (2, "", 1), options
        assert words in err
    status, _, err = sjd("draw", "b.jsonl", *run[2:])
    assert (status, "is the folder of another job, with rows 2, not 3" in err) == (2, True)
    status, _, err = sjd("draw", "missing.txt", *run[2:])
    assert (status, err) == (2, "sjd: error: missing.txt: No such file or directory.\n")
    assert sjd("draw", "--status", "full")[2].startswith("sjd: error: full is not the folder of a job: ")
    assert sjd("draw")[2] == "sjd: error: the following arguments are required: JOB and -o, or --status\n"
    other = tmp_path_factory.mktemp("models") / "toy"
    toy_pipeline(4, 64, seed=1).save_pretrained(other)
    next(Path("out").glob("pictures/*/*.json")).unlink()
    described = json.loads(Path("out/job.json").read_text())
    Path("out/job.json").write_text(json.dumps(described | {"model": str(other)}))
    status, _, err = sjd(*run[:4], "--model", other, *run[6:])
    assert (status, err.count("\n")) == (2, 1)
    assert "out was begun by another model, of weights " in err
    assert stamps(Path("out")).items() < before.items()


def test_two_processes_do_not_work_on_one_job(sjd, model, tmp_path):
    write_table(Path("a.jsonl"), 2)
    code = "import sys\nfrom pathlib import Path\nfrom sjd_pipelines.jobs.folder import JobFolder\n"
    code += "with JobFolder(Path(sys.argv[1])).locked({'rows': 2}):\n    print(flush=True)\n    sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        status, out, err = sjd("draw", "a.jsonl", "-o", "out", "--model", model)
        assert (status, out) == (2, "")
        assert f"out is being worked on by process {other.pid} on " in err
        other.kill()
    Path("out/job.json").unlink()
    assert sjd("draw", "a.jsonl", "-o", "out", "--model", model, "--quiet") == (0, "", "")


def test_a_model_that_is_not_there_stops_the_job(sjd):
    write_table(Path("a.jsonl"), 2)
    status, out, err = sjd("draw", "a.jsonl", "-o", "out", "--model", "./nowhere")
    assert (status, out) == (2, "")
    assert err.startswith("sjd: error: cannot load the model: ")
    assert [path.name for path in Path().iterdir()] == ["a.jsonl"]
    Path("out").mkdir()
    assert sjd("draw", "a.jsonl", "-o", "out", "--model", "./nowhere")[0] == 2
    assert [path.name for path in Path("out").iterdir()] == ["lock"]  # it may be another command's by now


def test_a_full_disk_stops_the_job_and_it_goes_on(draw, tmp_path, undisturbed):
    """Stands for it: a file where a folder is to be made."""
    table = write_table(tmp_path / "a.jsonl", ROWS)
    with Table(table) as rows:
        shards = {JobFolder(tmp_path / "out").picture(row).parent for row in rows}
    blocked = sorted(shards)[len(shards) // 2]
    blocked.parent.mkdir(parents=True)
    (tmp_path / "out" / "pictures").rmdir()
    (tmp_path / "out").rmdir()

    def block(done, total):
        if not blocked.exists():
            blocked.touch()

    with pytest.raises(Exception, match=r"cannot write .*; make that possible and repeat the command"):
        draw(table, tmp_path / "out", on_progress=block)
    blocked.unlink()
    status = draw(table, tmp_path / "out", workers=2)
    assert (status.drawn, status.missing) == (ROWS, 0)
    assert pictures(tmp_path / "out") == undisturbed


def test_what_is_removed_or_cut_short_is_drawn_again(draw, tmp_path, undisturbed):
    table, out = write_table(tmp_path / "a.jsonl", ROWS), tmp_path / "out"
    out.mkdir()
    for left in ("lock", ".sjd-1234.json"):  # by a command that was killed as it began
        (out / left).touch()
    draw(table, JobFolder.check(out).path)
    files = {path.name: path for path in out.glob("pictures/*/*")}
    files["p0.png"].unlink()
    files["p1.png"].write_bytes(files["p1.png"].read_bytes()[:100])
    files["p2.png"].write_bytes(b"")
    files["p3.json"].write_text("")
    shutil.rmtree(files["p4.png"].parent)
    assert JobFolder(out).status().missing == 5
    assert draw(table, out).drawn == ROWS
    assert pictures(out) == undisturbed
    files["p5.json"].write_text("{}\n")
    with pytest.raises(JobError, match=r"p5.json is not as it was written; delete it and repeat"):
        draw(table, out)


def test_killed_workers_are_replaced(draw, tmp_path, undisturbed):
    table, seen = write_table(tmp_path / "a.jsonl", ROWS), []

    def kill(done, total):
        seen.append((done, total))
        if len(seen) in (1, 3):
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    status = draw(table, tmp_path / "out", workers=2, on_progress=kill)
    assert (status.drawn, status.failed) == (ROWS, 0)
    assert seen[-1] == (ROWS, ROWS)
    assert pictures(tmp_path / "out") == undisturbed


def kill_all(command, folder, pictures_first):
    """Start a job in a session of its own, and kill every process of it once there are so many pictures."""
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(stamps(folder)) < pictures_first:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)


def test_a_table_that_changes_while_it_is_drawn_is_noticed(draw, tmp_path):
    table = write_table(tmp_path / "a.jsonl", 2)
    for name, change in (("deleted", table.unlink), ("longer", lambda: write_table(table, 3))):
        write_table(table, 2)
        with pytest.raises(JobError, match=r"a.jsonl was changed while it was drawn.* name a new folder"):
            draw(table, tmp_path / name, batch_size=2, on_progress=lambda done, total, change=change: change())
    with Table(write_table(table, 2)) as rows:
        table.unlink()
        with pytest.raises(ValueError, match=r"a.jsonl: No such file or directory."):
            rows.check()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_an_interrupt_while_workers_start_is_one_line(model, tmp_path):
    command = [sys.executable, "-m", "sjd_pipelines.cli", "draw", str(write_table(tmp_path / "a.jsonl", 2))]
    command += ["-o", str(tmp_path / "out"), "--model", model]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while len(children.read_text().split()) < 2:  # what cleans up, and the server that forks, which imports now
            time.sleep(0.01)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate()[1] == "sjd: interrupted\n"
    assert process.returncode == 130
    assert not (tmp_path / "out").exists()


def test_a_job_of_which_everything_is_killed_goes_on(draw, model, tmp_path, undisturbed):
    table = write_table(tmp_path / "a.jsonl", ROWS)
    command = [sys.executable, "-m", "sjd_pipelines.cli", "draw", str(table), "-o", str(tmp_path / "out")]
    command += ["--model", model, "--batch-size", "4"]
    kill_all(command, tmp_path / "out", pictures_first=5)
    before = stamps(tmp_path / "out")
    assert 5 <= len(before) < ROWS
    (tmp_path / "out" / "pictures" / "00").mkdir(exist_ok=True)
    (tmp_path / "out" / "pictures" / "00" / ".sjd-1234.png").write_text("half a picture")
    status = draw(table, tmp_path / "out", workers=2)
    assert (status.drawn, status.missing) == (ROWS, 0)
    assert stamps(tmp_path / "out").items() >= before.items()
    assert pictures(tmp_path / "out") == undisturbed
