"""The loop that row-parallel decoders share: several rows of the image grow at once, each from its own left end.

A row opens when the row above is `delay` columns ahead. A member of the family decides what the slots of the open
rows become. The context of a token lacks what the rows above have not drawn yet, so all members are approximate.

How far each row has come is known to the host, which lays out the next pass: these are a few numbers per open row.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.query import Query
from ..decoding.state import DecodingState
from ..decoding.target import Companion
from .base import DecodingScheduler
from .rules.speculative import Drafted

ROW_SHARES = (1.0, 0.5, 0.25, 0.125)  # of a row, for the report's curves over `delay`


@dataclass
class Row:
    """How far a row of an image has come.

    Attributes:
        number: from the top.
        final: columns that are final, from the left, without the row end.
        drafted: columns that have a token, final or not.
        above: columns that are final in the row above; the first row has nothing to wait for.
        slots: of this pass.
        growing: whether it gains tokens in this pass.
        closed: complete, and the keys and values of its last token need no slot any more.
    """

    number: int
    final: int = 0
    drafted: int = 0
    above: int = 0
    slots: int = 0
    growing: bool = False
    closed: bool = False


class RowSlot(NamedTuple):
    """A slot of one pass; the first of a row feeds its last final token.

    Attributes:
        row: that it is in.
        offset: its number within the row.
        column: that it predicts; for the slot of a complete row, whose output is not used, there is no such column.
        position: what it predicts.
        open: whether it predicts anything; False for complete rows and for padding.
    """

    row: Row
    offset: int
    column: int
    position: int
    open: bool


@dataclass(kw_only=True)
class RowDecodingState(DecodingState):
    """The state of one batch whose rows grow side by side.

    Attributes:
        images: rows of each image.
        first: number of the first row of each image that is not complete.
        slots: of each image in this pass, rows one after another; equally many.
        targets: `[B, Q]` int64: where on the canvas they leave their tokens.
        gained: `[B, R]` int64: columns that the growing rows have gained in this pass.
        known: `[N]` bool: positions whose token is known in advance; None: there are none.
    """

    images: list[list[Row]] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    slots: list[list[RowSlot]] = field(default_factory=list)
    targets: torch.Tensor | None = None
    gained: torch.Tensor | None = None
    known: torch.Tensor | None = None

    @classmethod
    def empty(
        cls,
        layout: ImageTokenLayout,
        batch_size: int,
        margin: int,
        law_slots: int = 0,
        device: torch.device | str = "cpu",
        companions: Mapping[str, Companion] | None = None,
    ) -> "RowDecodingState":
        """Forced tokens alone are on the canvas."""
        state = cls(**vars(DecodingState.empty(layout, batch_size, margin, law_slots, device, companions)))
        state.images = [[Row(number) for number in range(layout.rows)] for _ in range(batch_size)]
        state.first = [0] * batch_size
        if state.forced is not None:
            state.canvas += state.forced.clamp(min=0)
            state.known = state.forced[: layout.num_tokens] >= 0
        return state

    def of_slots(self, numbers: Callable[[RowSlot, int], tuple[int, ...]]) -> tuple[torch.Tensor, ...]:
        """Some numbers of every slot, given its image's `first`, in one copy to the canvas: `[B, Q]` int64 each."""
        table = [[numbers(slot, first) for slot in slots] for first, slots in zip(self.first, self.slots)]
        return self.canvas.new_tensor(table).unbind(-1)

    def synchronize(self) -> None:
        layout, arrived = self.layout, []
        for index, (rows, gains) in enumerate(zip(self.images, self.gained.tolist())):
            new = []
            for row in rows[self.first[index] :]:
                if not row.growing:
                    continue
                begin = row.number * layout.width
                new += range(begin + row.final, begin + row.final + gains[row.number])
                row.drafted = max(row.drafted, row.final + row.slots)
                row.final += gains[row.number]
                if row.final == layout.columns:  # a row end is final together with the last token of its row
                    new += range(begin + layout.columns, begin + layout.width)
            while self.first[index] < layout.rows and rows[self.first[index]].final == layout.columns:
                self.first[index] += 1
            if self.first[index] == layout.rows and new:  # and the tail together with the last row
                new += range(layout.rows * layout.width, layout.num_tokens)
            arrived.append(new)
        self.advances = [len(new) for new in arrived]
        self.counts = [count + gain for count, gain in zip(self.counts, self.advances)]
        self.committed = self.canvas.new_tensor(self.counts)
        # Images that gain less than others repeat a position; a complete one repeats a place in the margin.
        length, nowhere = max(self.advances), [self.canvas.shape[1] - 1]
        arrived = [new + (new[-1:] or nowhere) * (length - len(new)) for new in arrived]
        self.accepted_at.scatter_(1, self.canvas.new_tensor(arrived), self.passes - 1)


@dataclass
class RowSlots:
    """The slots of one pass, as the choices see them.

    Attributes:
        target: `[B, Q, V]` float32, the model's law at each slot.
        positions: `[B, Q]` int64, what the slots predict.
        state: the run before this pass is committed.
        noise: position-addressed random numbers.
        numbers: what `RowParallelScheduler.look_up` says of each slot, `[B, Q]` int64 each.
        keep: `[B, Q]` bool, which drafts passed, once that is known.
        gained: `[B, R]` int64, once that is known: columns that each growing row gains.
        drafted: what an acceptance rule was told.
    """

    target: torch.Tensor
    positions: torch.Tensor
    state: RowDecodingState
    noise: PositionNoise
    numbers: tuple[torch.Tensor, ...]
    keep: torch.Tensor | None = None
    gained: torch.Tensor | None = None
    drafted: Drafted | None = None

    @cached_property
    def drafts(self) -> torch.Tensor:
        """`[B, Q]` int64; of no use where a slot has none."""
        return self.state.canvas.gather(1, self.positions)

    @cached_property
    def uniforms(self) -> torch.Tensor:
        """`[B, Q]`: numbers in [0, 1) that decide over each draft."""
        return self.noise.uniform(self.positions, Purpose.ACCEPT, self.state.passes)

    def exponential(self) -> torch.Tensor:
        """`[B, Q, V]`: noise to draw with that is new in every pass."""
        return self.noise.exponential(self.positions, Purpose.RESIDUAL, self.target.shape[-1], self.state.passes)


class RowParallelScheduler(DecodingScheduler):
    """Base of the family. Subclasses set `label` and `paper`, have a setting `delay` and make its choices.

    As in a window: how a column that enters is drafted (`draft`), whether a draft is accepted (`accept`), how many
    columns a row gains by that (`gains`), and what takes the places from the first rejection on (`redraft`).

    The keys and values of a final token are written by the pass after the one that made it final, which also is the
    first pass that lets other rows see it. A complete row therefore gets one more slot, for its last token.
    """

    raster_only = True

    @abstractmethod
    def drafts(self, layout: ImageTokenLayout) -> int:
        """How many drafts a row may verify per pass."""

    @abstractmethod
    def accept(self, slots: RowSlots) -> torch.Tensor:
        """Which drafts pass, each on its own: `[B, Q]` bool."""

    @abstractmethod
    def gains(self, slots: RowSlots) -> torch.Tensor:
        """How many columns each growing row gains: `[B, R]` int64."""

    @abstractmethod
    def redraft(self, slots: RowSlots) -> torch.Tensor:
        """Tokens for all slots, those that are kept among them: `[B, Q]` int64."""

    def look_up(self, state: RowDecodingState) -> tuple[torch.Tensor, ...]:
        """What the choices need to know of each slot beside its law, `[B, Q]` int64 each."""
        return ()

    def delay(self, layout: ImageTokenLayout) -> int:
        """How many columns of the row above must be final before a row opens; by default a quarter of them."""
        return min(self.config.delay or -(-layout.columns // 4), layout.columns)

    def law_slots(self, layout: ImageTokenLayout) -> int:
        """Positions whose laws are kept."""
        return 0

    def draft(self, state: RowDecodingState, noise: PositionNoise) -> None:
        """Guess tokens for columns that have none, `state.slots`; only called where `drafts` says there are such."""
        raise NotImplementedError

    def open_rows(self, layout: ImageTokenLayout) -> int:
        """How many rows may be open at a time: as many as fit side by side at their delay, and one."""
        return min(layout.rows, -(-layout.columns // self.delay(layout)) + 1)

    def margin(self, layout: ImageTokenLayout) -> int:
        # Padding slots stand behind the image, because no two slots of a pass may share a position.
        return self.open_rows(layout) * (self.drafts(layout) + 2) + 1

    def start(
        self,
        layout: ImageTokenLayout,
        batch_size: int,
        device: torch.device | str = "cpu",
        companions: Mapping[str, Companion] | None = None,
    ) -> RowDecodingState:
        margin, law_slots = self.margin(layout), self.law_slots(layout)
        return RowDecodingState.empty(layout, batch_size, margin, law_slots, device, companions)

    def plan(self, state: RowDecodingState, noise: PositionNoise) -> Query:
        """Returns a query of as many slots as the image with the most of them needs."""
        layout = state.layout
        fresh, slots = zip(*(self._lay_out(rows, first, layout) for rows, first in zip(state.images, state.first)))
        if any(fresh):
            state.slots = _padded(fresh, state)
            self.draft(state, noise)
        state.slots = _padded(slots, state)
        width, nowhere = layout.width, state.canvas.shape[1] - 1
        predicts, sources, own, state.targets = state.of_slots(
            lambda slot, first: (
                slot.position,
                _source(slot, layout),
                slot.row.number * width - 1,
                slot.position if slot.open else nowhere,
            )
        )
        used = max(row[-1].row.number for row in slots if row) + 1  # rows from the top
        canvas = torch.arange(used * width, device=predicts.device)  # [S]
        final = state.accepted_at[:, None, : len(canvas)] >= 0  # [B, 1, S]
        if state.known is not None:
            final = final | state.known[: len(canvas)]  # a row end is fed when the next row opens
        # A row sees its own drafts, and what it was opened with: other rows do not.
        visible = (canvas < predicts[..., None]) & (final | (canvas >= own[..., None]))
        positions = (predicts - 1).clamp(min=0)
        return Query(state.canvas.gather(1, sources), positions, predicts, visible, prompt_end=state.passes == 0)

    def step(
        self, probabilities: torch.Tensor, query: Query, state: RowDecodingState, noise: PositionNoise
    ) -> RowDecodingState:
        slots = RowSlots(probabilities, query.predicts, state, noise, self.look_up(state))
        slots.keep = self.accept(slots)
        state.gained = slots.gained = self.gains(slots)
        state.canvas.scatter_(1, state.targets, self.redraft(slots))
        state.passes += 1
        return state

    def _lay_out(self, rows: list[Row], first: int, layout: ImageTokenLayout) -> tuple[list[RowSlot], list[RowSlot]]:
        """Columns of an image that are to be guessed, and its slots of this pass."""
        fresh, slots = [], []
        begin = first
        while begin and not rows[begin - 1].closed:
            begin -= 1
        for row in rows[begin : first + self.open_rows(layout)]:
            row.above = rows[row.number - 1].final if row.number else layout.columns
            if row.final == layout.columns:
                # Its last token is fed once more, unless it opens the next row in the same pass.
                behind = rows[row.number + 1 :]
                needed = not row.closed and behind and (layout.row_end is not None or behind[0].final > 0)
                row.growing, row.closed, row.slots = False, True, int(bool(needed))
            else:
                row.growing = row.final > 0 or row.above >= self.delay(layout)
                # Drafts stay below what is final in the row above, and leave the last column to the token behind them.
                drafts = min(row.above + 1, layout.columns) - 1 - row.final
                drafts = min(max(drafts, 0), self.drafts(layout))
                row.slots = 1 + drafts if row.growing else 0
                if row.growing:
                    fresh += _slots_of(row, row.drafted, row.final + drafts, layout)
            slots += _slots_of(row, row.final, row.final + row.slots, layout)
        return fresh, slots


def _slots_of(row: Row, start: int, end: int, layout: ImageTokenLayout) -> list[RowSlot]:
    """Slots of one row for the columns from `start` to `end` (exclusive)."""
    first = row.number * layout.width
    return [
        RowSlot(row, index, column, first + column, column < layout.columns)
        for index, column in enumerate(range(start, end))
    ]


def _padded(slots: tuple[list[RowSlot], ...], state: RowDecodingState) -> list[list[RowSlot]]:
    """As many slots for every image; those in excess stand behind it."""
    length, behind = max(map(len, slots)), state.layout.num_tokens + 1
    return [
        present + [RowSlot(rows[-1], 0, 0, behind + index, open=False) for index in range(len(present), length)]
        for present, rows in zip(slots, state.images)
    ]


def _source(slot: RowSlot, layout: ImageTokenLayout) -> int:
    """The position of the token that a slot feeds."""
    row = slot.row
    if layout.row_end is None and slot.open and slot.column == 0 and row.above < layout.columns:
        # The row opens before the last token of the row above is known: the latest one stands in for it.
        return (row.number - 1) * layout.width + row.above - 1
    return max(slot.position - 1, 0)
