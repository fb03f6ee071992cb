"""Tables of prompts: text, JSON lines, CSV or Parquet, read row by row, so that their length costs no memory."""

import csv
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..disk import expanded
from ..ranges import shown
from .rows import Row

STANDARD_INPUT = "-"
LONGEST_LINE = 2**20  # bytes
_NUMBERS = ("seed", "picture_seed", "height", "width")


class Table:
    """The rows of a file, or of what comes through a pipe. They can be read again and again, within its block.

    Args:
        source: a file, or `-` for standard input. Its suffix says what is in it: `.jsonl`, `.csv`, `.parquet`; of
            other names the content does: JSON lines, where it begins with a brace, or a prompt on every line.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, source: str | Path):
        self.name = "standard input" if source == STANDARD_INPUT else str(source)
        self._spool: BinaryIO | None = None
        self._path = None if source == STANDARD_INPUT else expanded(source)
        if self._path is None:
            self._spool = _spooled(sys.stdin.buffer)
        elif not self._path.is_file():
            with self._path.open("rb") as pipe:
                self._spool = _spooled(pipe)
        suffix = "" if self._path is None else self._path.suffix.lower()
        if suffix not in _READERS:
            with self._opened() as file:
                begin = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
            suffix = ".jsonl" if begin.startswith(b"{") else ".txt"
        self._read = _READERS[suffix]

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._spool is not None:
            self._spool.close()

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self._spool is None:
            with self._path.open("rb") as file:
                yield file
        else:
            self._spool.seek(0)
            yield self._spool

    def __iter__(self) -> Iterator[Row]:
        """Raises `ValueError`, which names the line, for the first row that is none, and where there is no file."""
        return self._rows(lambda row: None)

    def _rows(self, look: Callable[[Row], None]) -> Iterator[Row]:
        number = 0
        try:
            with self._opened() as file:
                for place, values in self._read(file):
                    number += 1
                    with _at(place):
                        row = Row.of(values, number)
                        look(row)
                    yield row
        except _BadLineError as error:
            raise ValueError(f"{self.name}, {error}") from error.__cause__
        except OSError as error:
            raise ValueError(f"{self.name}: {error.strerror or error}.") from error

    def check(self, look: Callable[[Row], None] = lambda row: None) -> int:
        """The number of rows.

        Args:
            look: called with each; what it raises as `ValueError` gets the line as well.

        Raises:
            ValueError: one is no row, or two have the same id.
        """
        rows = sum(1 for _ in self._rows(look))
        if not rows:
            raise ValueError(f"{self.name} has no rows.")
        # Whether letters are small or capital tells files apart on some systems only.
        if (row := first_twice(self, lambda row: row.file_stem.lower())) is not None:
            raise ValueError(f"{self.name}: the id {row.id!r} is there twice; give each row its own.")
        return rows

    def digest(self) -> str:
        """SHA-256 of what is in the file, in hexadecimal."""
        digest = hashlib.sha256()
        with self._opened() as file:
            while block := file.read(2**20):
                digest.update(block)
        return digest.hexdigest()


def first_twice(items: Iterable[Any], key: Callable[[Any], str]) -> Any:
    """The first item whose key another one had before, or None. They are gone through twice, eight bytes each."""
    import numpy as np

    digests = np.fromiter((_short_digest(key(item)) for item in items), np.uint64)
    digests.sort()
    twice, seen = set(digests[1:][digests[1:] == digests[:-1]].tolist()), set()
    for item in items if twice else ():
        if _short_digest(key(item)) in twice:
            if key(item) in seen:
                return item
            seen.add(key(item))
    return None


def _short_digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class _BadLineError(ValueError):
    """A line that cannot be read; says which."""


@contextmanager
def _at(place: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise _BadLineError(f"{place}: {error}") from error


def _spooled(stream: BinaryIO) -> BinaryIO:
    """What comes through a pipe, as a nameless file."""
    mode = os.fstat(stream.fileno()).st_mode
    if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not stream.isatty()):
        raise OSError(errno.EINVAL, "Is a device, not a file")  # such as /dev/zero have no end
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile())
        shutil.copyfileobj(stream, file)
        stack.pop_all()  # the table closes it
    return file


def _decoded(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Where a line is, and its text with what ends it."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        place = f"line {number}"
        if len(line) > LONGEST_LINE:
            raise _BadLineError(f"{place}: is longer than {LONGEST_LINE} bytes.")
        try:
            yield place, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _BadLineError(f"{place}: is not valid UTF-8 at byte {error.start + 1}.") from error


def _lines(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The same without blanks around it; blank ones are left out."""
    return ((place, text.strip()) for place, text in _decoded(file) if text.strip())


def _read_text(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((place, {"prompt": text}) for place, text in _lines(file))


def _read_json_lines(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, text in _lines(file):
        yield place, _object(place, text)


def _read_csv(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = csv.reader((text for _, text in _decoded(file)), strict=True)
    columns: list[str] | None = None
    while True:
        try:
            cells = next(lines, None)
        except csv.Error as error:
            raise _BadLineError(f"line {lines.line_num}: {error}.") from error
        if cells is None:
            return
        place = f"line {lines.line_num}"
        if columns is None:
            columns = [cell.strip() for cell in cells]
            if twice := next((name for name in columns if name and columns.count(name) > 1), None):
                raise _BadLineError(f"{place}: the column {shown(twice)} is there twice.")
        elif cells:
            if len(cells) > len(columns):
                raise _BadLineError(f"{place}: has {len(cells)} cells, the first line {len(columns)}.")
            values = {name: cell for name, cell in zip(columns, cells) if cell.strip()}
            yield place, _from_texts(place, values)


def _from_texts(place: str, values: dict[str, Any]) -> dict[str, Any]:
    for name in _NUMBERS:
        if name in values:
            try:
                values[name] = int(values[name])
            except ValueError:
                raise _BadLineError(f"{place}: {name} must be an integer, got {values[name][:40]!r}.") from None
    if "settings" in values:
        values["settings"] = _object(f"{place}: settings", values["settings"])
    return values


def _object(place: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise _BadLineError(f"{place}: is not valid JSON: {reason}.") from error
    if not isinstance(value, dict):
        raise _BadLineError(f"{place}: must be a JSON object.")
    return value


def _read_parquet(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise _BadLineError('Parquet needs pyarrow: pip install "sjd-pipelines[parquet]".') from error
    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                place = f"row {number}"
                if isinstance(values.get("settings"), str):
                    values["settings"] = _object(f"{place}: settings", values["settings"])
                yield place, values
    except (arrow.ArrowException, OSError) as error:
        raise _BadLineError(f"is no Parquet file: {str(error).splitlines()[0]}.") from error


_READERS: dict[str, Callable[[BinaryIO], Iterator[tuple[str, dict[str, Any]]]]] = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json_lines,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
