"""Rows to batches: those of one size and one kind of settings, prompts of like length side by side."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from .rows import Row

POOL = 1024  # rows that are looked at together


@dataclass(frozen=True)
class Batch:
    """Rows that are drawn at once, in the order of their table.

    Attributes:
        rows: the rows.
        wanted: ids of those whose pictures are to be written. The others only keep it company: a batch is drawn
            again as it was, so that not even its rounding changes.
    """

    rows: tuple[Row, ...]
    wanted: frozenset[str]

    def only(self, wanted: Iterable[str]) -> "Batch":
        return replace(self, wanted=frozenset(wanted))

    def to_text(self) -> str:
        """As one line, but for the files that the pictures go to."""
        return json.dumps({"rows": [row.to_json() for row in self.rows], "wanted": sorted(self.wanted)})

    @classmethod
    def from_text(cls, text: str) -> "Batch":
        values = json.loads(text)
        return cls(tuple(Row.of(row, 1) for row in values["rows"]), frozenset(values["wanted"]))


def pack(rows: Iterable[Row], size: int, pool: int = POOL) -> Iterator[Batch]:
    """Batches of at most `size` rows that may be drawn together; the same rows always make the same batches.

    Args:
        rows: of a job.
        size: rows of a batch.
        pool: how many rows are held at a time, and so how far a row may move. With `size` the order stays.
    """
    waiting = iter(rows)
    while held := list(islice(waiting, max(pool, size))):
        groups: dict[tuple, list[tuple[int, Row]]] = {}
        for index, row in enumerate(held):
            groups.setdefault(row.drawn_together, []).append((index, row))
        for group in groups.values():
            # Text slots are padded to the longest prompt of a batch.
            group.sort(key=lambda entry: (len(entry[1].prompt), entry[0]))
            for first in range(0, len(group), size):
                members = tuple(row for _, row in sorted(group[first : first + size], key=lambda entry: entry[0]))
                yield Batch(members, frozenset(row.id for row in members))
