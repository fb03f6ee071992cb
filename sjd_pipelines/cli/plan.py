"""What `sjd generate` draws: rows of the command line, of a table or of a picture, and the files they go to."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..disk import expanded
from ..jobs.rows import Row, check_scheduler, slug
from ..jobs.table import Table
from ..pipelines.inputs import SEED
from .arguments import CommandError
from .files import check_suffix

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
STANDARD_OUTPUT = "-"


@dataclass(frozen=True)
class Source:
    """Rows that can be gone through again and again.

    Attributes:
        rows: makes them.
        total: how many they are.
        stem: the name of a row's file in a folder, without its suffix.
        close: to be called after the last look at the rows.
    """

    rows: Callable[[], Iterator[Row]]
    total: int
    stem: Callable[[Row], str]
    close: Callable[[], None] = lambda: None


def listed(prompts: Sequence[str], count: int, start: int, picture_seeds: Sequence[int] | None) -> Source:
    """Prompts of the command line, `count` pictures of each, one after the other.

    Args:
        prompts: what to draw.
        count: pictures of each.
        start: seed of the first picture.
        picture_seeds: one for each picture, in place of those; None is none.

    Raises:
        CommandError: the seeds are too large, or not as many as the pictures.
    """
    total = len(prompts) * count
    if picture_seeds is not None and len(picture_seeds) != total:
        raise CommandError(f"--picture-seeds: got {len(picture_seeds)} for {total} pictures; give one for each.")
    check_seeds(start, total)

    def rows() -> Iterator[Row]:
        for index in range(total):
            prompt = prompts[index // count]
            if picture_seeds is None:
                yield Row(str(index), prompt, seed=start + index)
            else:
                yield Row(str(index), prompt, picture_seed=picture_seeds[index])

    return Source(rows, total, _by_prompt)


def of_table(name: str, count: int, start: int | None) -> Source:
    """The rows of a table, `count` pictures of each; those without a seed are numbered from `start`, if there is one.

    Raises:
        CommandError: it can't be read, or a row of it can't be drawn.
    """
    try:
        table = Table(name)
    except OSError as error:
        raise CommandError(f"--prompts {name}: {error.strerror or error}.") from error
    with ExitStack() as stack:
        stack.enter_context(table)
        try:
            total = table.check(partial(_check_row, count)) * count
        except ValueError as error:
            raise CommandError(error) from error
        if start is not None:
            check_seeds(start, total)
        close = stack.pop_all().close  # it stays open

    def rows() -> Iterator[Row]:
        for number, row in enumerate(table):
            for index in range(count):
                yield _numbered(row, index, count, None if start is None else start + number * count + index)

    return Source(rows, total, lambda row: row.file_stem, close)


def of_rows(rows: Sequence[Row]) -> Source:
    """The pictures that a file remembers."""
    return Source(lambda: iter(rows), len(rows), _by_prompt)


def check_seeds(start: int, total: int) -> None:
    """Raise `CommandError` for seeds beyond the last."""
    if not SEED.takes(start + total - 1):
        raise CommandError(f"--seed {start}: the seeds of {total} pictures must stay below 2**63.")


class Plan:
    """The rows of a source with their files and with what they leave to defaults.

    Args:
        source: of the rows.
        output: a picture file, a folder (anything without a suffix, ending in a slash, or existing as one), or `-`.

    Raises:
        CommandError: the name says neither.
    """

    def __init__(self, source: Source, output: str):
        self.source, self.total = source, source.total
        self.defaults = Row("", "")
        self.to_standard_output = output == STANDARD_OUTPUT
        self.path = expanded(output)
        named = bool(self.path.suffix) and not output.endswith("/")
        if os.path.isdir(self.path) and self.path.suffix.lower() not in PICTURE_SUFFIXES:
            named = False
        self.named = named
        if named:
            check_suffix("--output", self.path, PICTURE_SUFFIXES)
            if os.path.isdir(self.path):
                raise CommandError(f"--output {self.path}: is a folder; name a file, or end the name with a slash.")

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self.path.parent if self.named else self.path

    def __iter__(self) -> Iterator[Row]:
        for index, row in enumerate(self.source.rows()):
            yield replace(row.with_seed().with_defaults(self.defaults), path=self._file(index, row))

    def files(self) -> Iterator[Path]:
        """The files alone, in the order of the rows."""
        return (self._file(index, row) for index, row in enumerate(self.source.rows()))

    def _file(self, index: int, row: Row) -> Path:
        if not self.named:
            return self.path / f"{self.source.stem(row)}.png"
        if self.total == 1:
            return self.path
        return self.path.with_stem(f"{self.path.stem}-{index:0{len(str(self.total - 1))}}")


def _check_row(count: int, row: Row) -> None:
    """Raise `ValueError` if not all pictures of a row have a seed, or it names a scheduler that is none."""
    check_scheduler(row)
    for name in ("seed", "picture_seed"):
        if (seed := getattr(row, name)) is not None:
            SEED.check(f"{name} of picture {count}" if count > 1 else name, seed + count - 1)


def _by_prompt(row: Row) -> str:
    return f"{slug(row.prompt)}-{row.picture_seed if row.seed is None else row.seed}"


def _numbered(row: Row, index: int, count: int, seed: int | None) -> Row:
    """Picture `index` of `count` of a row."""
    if row.seed is None and row.picture_seed is None and seed is not None:
        row = replace(row, seed=seed)
    elif index:
        if row.picture_seed is not None:
            row = replace(row, picture_seed=row.picture_seed + index)
        elif row.seed is not None:
            row = replace(row, seed=row.seed + index)
    return row if count == 1 else replace(row, id=f"{row.id}-{index}")
