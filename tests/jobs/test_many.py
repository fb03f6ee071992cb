"""Jobs of some size: killed ten times over, and planned in no more memory than small ones."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from .conftest import pictures, write_table
from .test_draw import stamps

ROWS, KILLS, BATCH = 600, 10, 8


def members(session):
    """Processes of a session but for its first."""
    listed = subprocess.run(["ps", "-eo", "pid,sess"], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
    return [pid for pid, sess in pairs if sess == session and pid != session]


def drawn_until_killed(command, folder, chance):
    """Start a job, and at a random moment kill a process of it, its driver, or all; says whether it ended well."""
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        start = len(stamps(folder))
        wanted = start + chance.randrange(60)
        while process.poll() is None and len(stamps(folder)) <= wanted:
            time.sleep(chance.random() / 10)
        time.sleep(chance.random())
        match chance.choice(("worker", "driver", "all")):
            case "worker" if others := members(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(others), signal.SIGKILL)
                process.wait()
            case "driver":
                process.kill()
            case _ if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="lists processes")
@pytest.mark.parametrize("which", ["toy", "emoji-janus"])
def test_six_hundred_prompts_killed_ten_times(which, model, draw, tmp_path):
    source = model if which == "toy" else which
    table, folder, chance = write_table(tmp_path / "a.jsonl", ROWS), tmp_path / "out", random.Random(0)
    command = [sys.executable, "-m", "sjd_pipelines.cli", "draw", str(table), "-o", str(folder), "--model", source]
    command += ["--batch-size", str(BATCH), "--quiet"]
    before = {}
    for _ in range(KILLS):
        ended = drawn_until_killed([*command, "--workers", str(chance.randrange(1, 4))], folder, chance)
        now = stamps(folder)
        assert now.items() >= before.items(), "a settled picture was drawn again"
        before = now
        if ended:
            break
    assert subprocess.run([*command, "--workers", "2"], check=False).returncode == 0
    assert stamps(folder).items() >= before.items()
    expected = tmp_path / "expected"
    subprocess.run([*command[:6], str(expected), *command[7:]], check=True)
    found = pictures(folder)
    assert len(found) == ROWS
    assert found == pictures(expected)


# In a process of its own, which loads no torch: rows, batches, and the most memory that it had, in KiB.
PLAN = f"""
import json, re, sys
from pathlib import Path
from sjd_pipelines.jobs.driver import Job
from sjd_pipelines.jobs.table import Table
from sjd_pipelines.jobs.work import Work
with Table(sys.argv[1]) as table:
    job = Job(table, Work(Path(sys.argv[2])), batch_size={BATCH})
    rows, batches = job.describe()["rows"], sum(1 for _ in job.missing())
assert "torch" not in sys.modules
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(json.dumps([rows, batches, int(peak)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_the_memory_of_planning_does_not_grow(tmp_path):
    peaks = []
    for rows in (1_000, 100_000):
        table = write_table(tmp_path / "a.jsonl", rows)
        command = [sys.executable, "-c", PLAN, str(table), str(tmp_path / "out")]
        count, batches, peak = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert (count, batches) == (rows, -(-rows // BATCH))
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 6 * 1024, peaks
