"""Drives a job: plans batches, has workers draw what is missing, and sums up."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..disk import read_object, replacing, write_json
from ..pipelines.sheets import sheet_of_files
from .batches import Batch, pack
from .folder import RECORD, SHEET, SUMMARY, JobError, JobFolder, Status, told
from .rows import Row
from .table import Table
from .work import Outcome, Work

ON_SHEET = 100  # pictures at most, evenly spread over the job
LISTED = 100  # failures that the summary has by id


class Workers(Protocol):
    """Whoever draws batches: processes of this machine, or actors of a cluster."""

    def draw(self, batches: Iterable[Batch]) -> Iterator[Outcome]:
        """Draw and write batches; what became of each comes as it ends, in any order."""


@dataclass(frozen=True)
class Job:
    """What a job is.

    Attributes:
        table: its rows.
        work: what its workers are told.
        defaults: what holds for rows that do not say otherwise.
        batch_size: pictures drawn at once.
    """

    table: Table
    work: Work
    defaults: Row = field(default_factory=lambda: Row("", ""))
    batch_size: int = 1

    def describe(self) -> dict[str, Any]:
        """What must not change while it is drawn. Raises `ValueError` for a bad row."""
        defaults = {name: value for name, value in self.defaults.to_json().items() if value}
        return {
            "rows": self.table.check(),
            "table": self.table.digest(),
            "defaults": defaults,
            "model": None if self.work.model is None else str(self.work.model),
            "dtype": self.work.dtype,
            "batch_size": self.batch_size,
            "threads": self.work.threads,
        }

    @property
    def folder(self) -> JobFolder:
        return JobFolder(self.work.folder)

    def rows(self) -> Iterator[Row]:
        """Its rows, complete, with the files that they go to."""
        for row in self.table:
            yield replace(row.with_seed().with_defaults(self.defaults), path=self.folder.picture(row))

    def missing(self, retry_failed: bool = False) -> Iterator[Batch]:
        """The batches of which something is to be drawn."""
        for batch in pack(self.rows(), self.batch_size):
            wanted = [row.id for row in batch.rows if not self.folder.is_done(row, retry_failed)]
            if wanted:
                yield batch.only(wanted)


def run_job(
    job: Job,
    workers: Workers,
    retry_failed: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> Status:
    """Draw what is missing of a job, then write its sheet and its summary.

    Args:
        job: what is drawn, and where to.
        workers: who draws it.
        retry_failed: try those again that could not be drawn.
        on_progress: called with the pictures that are settled, and all of the job.
        on_notice: called with what the library logs while it draws, such as words that the model does not know.

    Raises:
        ValueError: a row is bad.
        JobError: the job can't go on; what is finished is complete, and the same call goes on from there.
    """
    described, folder = job.describe(), job.folder
    with folder.locked(described):
        before = folder.status()
        settled = before.drawn + (0 if retry_failed else before.failed)
        with closing(workers.draw(job.missing(retry_failed))) as outcomes:
            for outcome in outcomes:
                settled += outcome.drawn + outcome.failed
                for notice in outcome.notices if on_notice else ():
                    on_notice(notice)
                if on_progress is not None:
                    on_progress(settled, described["rows"])
                if outcome.stopped is not None:
                    raise JobError(outcome.stopped)
        _check_unchanged(job.table, described["table"])
        return sum_up(job)


def sum_up(job: Job) -> Status:
    """Write the sheet and the summary of what there is of a job."""
    folder = job.folder
    status, shown = folder.status(), []
    step = max(1, -(-status.drawn // ON_SHEET))
    passes, seconds, drawn, failures = 0, 0.0, 0, []
    for row in job.rows():
        if not folder.is_drawn(row.path):
            if len(failures) < LISTED:
                failures.append(row.id)
            continue
        cost = _cost(row.path.with_suffix(RECORD))
        passes, seconds = passes + cost[0], seconds + cost[1]
        if drawn % step == 0:
            shown.append(row.path)
        drawn += 1
    summary = {
        "rows": status.rows,
        "drawn": status.drawn,
        "failed": status.failed,
        "forward_passes": passes,
        "seconds": round(seconds, 3),
        "errors": dict(status.errors.most_common()),
        "failures": failures,
    }
    with told():
        if shown:
            with replacing(folder.path / SHEET) as temporary:
                sheet_of_files(shown, math.isqrt(len(shown) - 1) + 1).save(temporary)
        write_json(folder.path / SUMMARY, summary)
    return status


def _check_unchanged(table: Table, digest: str) -> None:
    try:
        unchanged = table.digest() == digest
    except OSError:
        unchanged = False
    if not unchanged:
        raise JobError(
            f"{table.name} was changed while it was drawn, and what was drawn since may be wrong; name a new folder."
        )


def _cost(record: Path) -> tuple[int, float]:
    """The forward passes and the seconds of a picture."""
    try:
        values = read_object(record)
        return int(values["forward_passes"]), float(sum(values["seconds"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(f"{record} is not as it was written; delete it and repeat the command.") from error


def folder_status(path: Path) -> Status:
    """How far the job in a folder is. Raises `JobError` if there is none."""
    return JobFolder(path).status()
