"""What a worker of a job does: load the model, then draw batches and write them."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .batches import Batch
from .folder import JobError, JobFolder, cannot_write
from .notices import telling
from .session import Drawn, Session


@dataclass(frozen=True)
class Work:
    """What a worker is told.

    Attributes:
        folder: of the job.
        model: what loads the model; None is the default bundled one.
        dtype: name of the number format of its weights.
        device: where it runs; None is a GPU if there is one.
        threads: of the CPU. Their number may change the last digit of a sum, so it does not depend on the machine.
    """

    folder: Path
    model: str | None = None
    dtype: str = "float32"
    device: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a batch.

    Attributes:
        drawn: pictures that are written.
        failed: pictures that could not be drawn.
        stopped: why the job can't go on; None if it can.
        notices: what was logged, such as words that the model does not know.
    """

    drawn: int = 0
    failed: int = 0
    stopped: str | None = None
    notices: tuple[str, ...] = ()


class Worker:
    """A loaded model at work on a job.

    Args:
        work: what it is told.
        number: of this worker, from 0; tells which of several GPUs it takes.

    Raises:
        JobError: the model can't be loaded, or another one has begun the job.
    """

    def __init__(self, work: Work, number: int = 0):
        self.folder = JobFolder(work.folder)
        try:
            pipe = load(work.model, work.dtype, _device(work.device, number))
        except (OSError, ValueError, RuntimeError) as error:
            raise JobError(f"cannot load the model: {' '.join(str(error).split())[:500]}") from error
        pipe.set_progress_bar_config(disable=True)
        self.session = Session(pipe, work.model)
        try:
            self.folder.claim_model(self.session.model)
        except OSError as error:
            raise JobError(cannot_write(error)) from error

    def draw(self, batch: Batch) -> Outcome:
        """Draw a batch and write what is wanted of it."""
        logged: dict[str, None] = {}
        with telling(lambda message: logged.setdefault(message)):
            drawn, errors = self._attempt(batch)
        notices = tuple(logged)
        written = failed = 0
        try:
            for one in drawn:
                if one.row.id in batch.wanted:
                    self.folder.write(one)
                    written += 1
            for row in batch.rows:
                if row.id in errors and row.id in batch.wanted:
                    self.folder.write_failure(row, errors[row.id])
                    failed += 1
        except OSError as error:
            return Outcome(written, failed, cannot_write(error), notices)
        return Outcome(written, failed, notices=notices)

    def _attempt(self, batch: Batch) -> tuple[list[Drawn], dict[str, str]]:
        """What can be drawn of a batch, and id -> reason for the rest."""
        good, errors = [], {}
        for row in batch.rows:
            try:
                self.session.check(row)
                good.append(row)
            except ValueError as error:
                errors[row.id] = _reason(error)
        try:
            return (self.session.draw(good) if good else []), errors
        except Exception as error:  # whatever it is, it must not stop the others
            if len(good) == 1:
                return [], errors | {good[0].id: _reason(error)}
        return self._one_by_one(good, errors)

    def _one_by_one(self, rows: Sequence[Any], errors: dict[str, str]) -> tuple[list[Drawn], dict[str, str]]:
        drawn = []
        for row in rows:
            try:
                drawn += self.session.draw([row])
            except Exception as error:
                errors[row.id] = _reason(error)
        return drawn, errors


def give_up(folder: JobFolder, batch: Batch, reason: str) -> Outcome:
    """Write of what is wanted of a batch that it could not be drawn."""
    rows = [row for row in batch.rows if row.id in batch.wanted]
    try:
        for row in rows:
            folder.write_failure(row, reason)
    except OSError as error:
        return Outcome(stopped=cannot_write(error))
    return Outcome(failed=len(rows))


def load(model: str | Path | None, dtype: str, device: str | None = None) -> Any:
    """The pipeline of a model, whatever its kind. Raises `OSError` and `ValueError` as its `from_pretrained`."""
    from ..pipelines.loading import find_pipeline

    _, cls = find_pipeline(model, {})
    pipe = cls.from_pretrained(model, dtype=dtype)
    return pipe if device is None else pipe.to(device)


def _device(name: str | None, number: int) -> str:
    import torch

    from ..pipelines.devices import read_device

    if name is not None and (name != "cuda" or not torch.cuda.is_available()):
        return str(read_device(name))
    return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


def settle_process(work: Work) -> None:
    """Make this process a worker and nothing else: its threads, no bars."""
    import torch
    from diffusers.utils import logging as diffusers_logging
    from tqdm import tqdm
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(work.threads)
    tqdm.set_lock(threading.RLock())  # its own is shared by processes, and missed when one of them is killed
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())[:500]
    return words if isinstance(error, ValueError | ArithmeticError) and words else f"{type(error).__name__}: {words}"
