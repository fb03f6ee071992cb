"""Jobs on Ray Data."""

import json
import os
import signal
import subprocess
import sys
import warnings

import pytest

from sjd_pipelines.jobs.batches import Batch, pack
from sjd_pipelines.jobs.driver import Job, run_job
from sjd_pipelines.jobs.folder import JobError
from sjd_pipelines.jobs.rows import Row
from sjd_pipelines.jobs.table import Table
from sjd_pipelines.jobs.work import Work

from .conftest import pictures, write_table

ROWS = 40


def test_batches_as_text():
    rows = [Row("1", 'a "red" dog\n', "fog", seed=3, height=8, settings={"top_k": 3, "scheduler": {"name": "sjd"}})]
    (batch,) = pack([*rows, Row("2", "b", "c", height=8, settings=rows[0].settings)], 4)
    text = batch.only(["2"]).to_text()
    assert "\n" not in text
    assert Batch.from_text(text) == batch.only(["2"])


def test_nothing_of_ray_is_imported_without_it():
    code = "import sys\nimport sjd_pipelines.cli.draw, sjd_pipelines.jobs.ray_data\nprint('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_without_ray_it_says_what_to_install(sjd, model):
    try:
        import ray.data  # noqa: F401
    except ImportError:
        write_table((table := __import__("pathlib").Path("a.jsonl")), 2)
        status, _, err = sjd("draw", table, "-o", "out", "--model", model, "--ray", "local")
        assert (status, err) == (2, 'sjd: error: --ray needs Ray Data: pip install "sjd-pipelines[ray]".\n')


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_job_on_a_local_ray_that_loses_an_actor_and_is_stopped(draw, model, tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    from sjd_pipelines.jobs.ray_data import Actors

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        table = write_table(tmp_path / "a.jsonl", ROWS)
        draw(table, tmp_path / "expected")
        work, seen = Work(tmp_path / "out", model), []

        def disturb(done, total):
            seen.append(done)
            if len(seen) == 2:
                listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
                pids = [int(line.split()[0]) for line in listed.splitlines() if "ray::MapWorker" in line]
                os.kill(pids[0], signal.SIGKILL)
            if len(seen) == 6:
                raise JobError("stopped")

        with Table(table) as rows:
            job = Job(rows, work, batch_size=4)
            with pytest.raises(JobError, match="stopped"):
                run_job(job, Actors(work, 2, "local"), on_progress=disturb)
            before = {path: path.stat().st_mtime_ns for path in work.folder.glob("pictures/*/*.json")}
            assert len(before) >= 20
            status = run_job(job, Actors(work, 1, "local"))
        assert (status.drawn, status.failed, status.missing) == (ROWS, 0, 0)
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert pictures(tmp_path / "out") == pictures(tmp_path / "expected")
        assert json.loads((work.folder / "summary.json").read_text())["drawn"] == ROWS
    finally:
        ray.shutdown()
