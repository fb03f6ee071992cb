"""Jobs on a toy model, and what must hold of their folders."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from sjd_pipelines.jobs.driver import Job, run_job
from sjd_pipelines.jobs.folder import ERROR, PICTURES, RECORD
from sjd_pipelines.jobs.processes import Processes
from sjd_pipelines.jobs.table import Table
from sjd_pipelines.jobs.work import Work

PROMPTS = ("car", "a red dog", "two cat on a green house", "three dog left of a house")


def write_table(path: Path, rows: int) -> Path:
    lines = [{"id": f"p{number}", "prompt": PROMPTS[number % 4]} for number in range(rows)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def pictures(folder: Path) -> dict[str, str]:
    """Name -> digest of the pixels and all that stands beside them; every file must be whole."""
    found = {}
    for path in sorted((folder / PICTURES).glob("*/*")):
        assert path.suffix in (".png", RECORD, ERROR), f"{path} is left over"
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
            found[path.stem] = hashlib.sha256(path.read_bytes()).hexdigest()
            record = json.loads(path.with_suffix(RECORD).read_text())
            assert record["id"] == path.stem
    return found


@pytest.fixture
def draw(model, tmp_path):
    """Run a job on a table in this process, with worker processes."""

    def run(table: Path, folder: Path, workers: int = 1, batch_size: int = 4, **options):
        work = Work(folder, model)
        with Table(table) as rows:
            return run_job(Job(rows, work, batch_size=batch_size), Processes(work, workers), **options)

    return run
