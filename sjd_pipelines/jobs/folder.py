"""The folder of a job. What is in it is all that there is to know of its progress: a picture is done when its record
is there, which is written after it, and both appear whole or not at all. One that is removed or cut short is missing.

    job.json           what the job is; the same command goes on with it
    model.json         the weights that draw it
    lock               held by the process that works on the job, as long as it lives
    pictures/ab/ID.png, ID.json      a picture and its record, sharded by a digest of the id
    pictures/ab/ID.error             why there is no picture
    sheet.png, summary.json          written at the end
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..disk import TEMPORARY, read_object, refusal_of_output_folder, replacing, write_json
from .provenance import png_bytes
from .rows import Row
from .session import Drawn

JOB, MODEL, LOCK, PICTURES, SHEET, SUMMARY = "job.json", "model.json", "lock", "pictures", "sheet.png", "summary.json"
RECORD, ERROR = ".json", ".error"  # beside a picture
_ENDS = {".png": b"IEND\xaeB`\x82", RECORD: b"}\n"}  # of files that nobody has cut short


class JobError(Exception):
    """A job that can't go on; says what to do."""


@dataclass
class Status:
    """How far a job is.

    Attributes:
        rows: of its table.
        drawn: pictures that are there.
        failed: pictures that could not be drawn.
        errors: reason -> how many failed of it.
    """

    rows: int
    drawn: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def missing(self) -> int:
        return self.rows - self.drawn - self.failed

    def __str__(self) -> str:
        lines = [f"{self.drawn} of {self.rows} drawn, {self.failed} failed, {self.missing} to be drawn"]
        lines += [f"  {count} x {error}" for error, count in self.errors.most_common(10)]
        return "\n".join(lines)


class JobFolder:
    """The folder of one job."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def check(cls, path: Path) -> "JobFolder":
        """Raises `JobError` for a folder that can't be, or isn't, a job's."""
        if refusal := refusal_of_output_folder(path):
            raise JobError(refusal)
        folder = cls(path)
        if os.path.isdir(path) and not folder._is_job() and folder._foreign():
            raise JobError(f"{path} holds other files than a job; name a new or an empty folder.")
        return folder

    @contextmanager
    def locked(self, job: Mapping[str, Any]) -> Iterator[None]:
        """The folder, made if need be, for this process alone; a lock ends with its process, however that ends.

        Args:
            job: what the job is.

        Raises:
            JobError: another process works on it, or it is the folder of another job.
        """
        with told():
            new = not self.path.exists()
            self.path.mkdir(exist_ok=True)
            handle = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, self.path)
            with told():
                self._claim(job)
                self.sweep()
            try:
                yield
            finally:
                with told():
                    self.sweep()
                    self._forget_nothing(new)
        finally:
            os.close(handle)

    def picture(self, row: Row) -> Path:
        """Where the picture of a row goes."""
        shard = hashlib.sha256(row.id.encode()).hexdigest()[:2]
        return self.path / PICTURES / shard / f"{row.file_stem}.png"

    def is_done(self, row: Row, retry_failed: bool = False) -> bool:
        """Whether nothing is left to do for a row that has its path."""
        if self.is_drawn(row.path):
            return True
        return not retry_failed and os.path.exists(row.path.with_suffix(ERROR))

    @staticmethod
    def is_drawn(picture: Path) -> bool:
        """Whether a picture and its record are there, both to their ends."""
        return _is_whole(picture.with_suffix(RECORD)) and _is_whole(picture)

    def write(self, drawn: Drawn) -> None:
        """Write a picture and its record. Raises `OSError`."""
        path = drawn.row.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(png_bytes(drawn.image, drawn.provenance))
        short = {name: value for name, value in drawn.record.items() if not isinstance(value, list)}
        write_json(path.with_suffix(RECORD), {"id": drawn.row.id, **short})
        path.with_suffix(ERROR).unlink(missing_ok=True)

    def write_failure(self, row: Row, error: str) -> None:
        """Write why a picture could not be drawn. Raises `OSError`."""
        row.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(row.path.with_suffix(ERROR), {"id": row.id, "prompt": row.prompt, "error": error})

    def claim_model(self, model: Mapping[str, str]) -> None:
        """Raise `JobError` if other weights than these have drawn a part of the job."""
        file = self.path / MODEL
        if not file.exists():
            write_json(file, dict(model))
        elif (before := read_object(file)) != dict(model):
            name = next((name for name in model if before.get(name) != model[name]), "name")
            raise JobError(
                f"{self.path} was begun by another model, of {name} {before.get(name)}; this one has {model[name]}."
            )

    def status(self) -> Status:
        """How far the job is. Raises `JobError` if there is none."""
        try:
            status = Status(int(read_object(self.path / JOB)["rows"]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise JobError(f"{self.path} is not the folder of a job: it has no {JOB} of one.") from error
        for shard in self._shards():
            for entry in os.scandir(shard):
                path = Path(entry.path)
                if path.name.startswith(TEMPORARY) or path.suffix not in (RECORD, ERROR):
                    continue
                if self.is_drawn(path.with_suffix(".png")):
                    status.drawn += path.suffix == RECORD
                elif path.suffix == ERROR:
                    status.failed += 1
                    with suppress(OSError):
                        status.errors[str(read_object(path).get("error"))] += 1
        return status

    def sweep(self) -> None:
        """Remove what a killed process had begun to write."""
        for folder in (self.path, *self._shards()):
            for entry in os.scandir(folder):
                if entry.name.startswith(TEMPORARY):
                    os.unlink(entry.path)

    def _is_job(self) -> bool:
        return (self.path / JOB).is_file()

    def _foreign(self) -> bool:
        """Whether anything is there but what is left of a command that was killed before it had begun."""
        return any(name != LOCK and not name.startswith(TEMPORARY) for name in os.listdir(self.path))

    def _claim(self, job: Mapping[str, Any]) -> None:
        if not self._is_job():
            write_json(self.path / JOB, dict(job))
            return
        before, now = read_object(self.path / JOB), json.loads(json.dumps(job))
        for name in now:
            if before.get(name) != now[name]:
                raise JobError(
                    f"{self.path} is the folder of another job, with {name} {json.dumps(before.get(name))[:200]}, not "
                    f"{json.dumps(now[name])[:200]}; repeat its command, or name another folder."
                )

    def _forget_nothing(self, new: bool) -> None:
        """Be no job's folder again where nothing of it has been settled: it may have been a slip of the pen."""
        for shard in self._shards():
            with suppress(OSError):
                shard.rmdir()  # those that are empty
        with suppress(OSError):
            (self.path / PICTURES).rmdir()
        if not (self.path / PICTURES).exists():
            for name in (JOB, MODEL, LOCK) if new else (JOB, MODEL):
                (self.path / name).unlink(missing_ok=True)
            if new:
                self.path.rmdir()

    def _shards(self) -> Iterator[Path]:
        pictures = self.path / PICTURES
        return (shard for shard in sorted(pictures.iterdir()) if shard.is_dir()) if pictures.is_dir() else iter(())


def _is_whole(path: Path) -> bool:
    end = _ENDS[path.suffix]
    try:
        with path.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:  # not there, or too short to have an end
        return False


@contextmanager
def told() -> Iterator[None]:
    """A block whose trouble with files is a `JobError`."""
    try:
        yield
    except OSError as error:
        raise JobError(cannot_write(error)) from error


def cannot_write(error: OSError) -> str:
    """What is said of a file that can't be written."""
    where = f"cannot write {error.filename}: {error.strerror}" if error.filename else str(error).rstrip(".")
    return f"{where}; make that possible and repeat the command, which goes on from here."


def _lock(handle: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # without locks nobody looks
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(handle, 100, 0).decode("utf-8", "replace").strip() or "another process"
        raise JobError(f"{path} is being worked on by {holder}; wait for it, or name another folder.") from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
