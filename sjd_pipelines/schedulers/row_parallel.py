"""The loop that row-parallel decoders share: several rows of the image grow at once, each from its own left end.

A row opens when the row above is `delay` columns ahead. A member of the family decides what the slots of the open
rows become. The context of a token lacks what the rows above have not sampled yet, so all members are approximate.

How far each row has come is known to the host, which lays out the next pass: these are a few numbers per open row.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.query import Query
from ..decoding.state import DecodingState
from ..decoding.target import Companion
from .base import DecodingScheduler, RunState
from .rules.speculative import Drafted

SIZES = 5  # numbers of slots that queries usually have, at equal distances
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
class RowDecodingState(RunState):
    """The state of one batch whose rows grow side by side.

    Attributes:
        images: rows of each image.
        first: number of the first row of each image that is not complete.
        final: `[B, R]` int64: columns of each row that are final, as `Row.final`.
        targets: `[B, Q]` int64: where on the canvas the slots of this pass leave their tokens.
        numbers: what `RowParallelScheduler.look_up` says of them, `[B, Q]` int64 each.
        gained: `[B, R]` int64: columns that the growing rows have gained in this pass.
        known: `[N + margin]` bool: positions whose token is known in advance; None: there are none.
    """

    extents: ClassVar[int] = 4  # beside the sizes of queries

    images: list[list[Row]] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    final: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    numbers: tuple[torch.Tensor, ...] = ()
    gained: torch.Tensor | None = None
    known: torch.Tensor | None = None

    @property
    def readable(self) -> int:
        return self.layout.rows * self.layout.width  # what stands after the rows is for padding

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
        state.final = state.canvas.new_zeros(batch_size, layout.rows)
        if state.forced is not None:
            state.canvas += state.forced.clamp(min=0)
            state.known = state.forced >= 0
            state.known[layout.num_tokens :] = False
        return state

    def advance(self, gained: torch.Tensor) -> "RowDecodingState":
        """Commit `gained` `[B, R]` columns of the rows that have a slot in this pass."""
        layout, rows = self.layout, (self.targets // self.layout.width).clamp(max=self.layout.rows)
        grows = gained.new_zeros(self.batch_size, layout.rows + 1).scatter_(1, rows, 1)[:, : layout.rows]
        self.gained, self.final = gained, self.final + gained * grows
        final = self.final
        if layout.row_end is not None:  # it is final together with the last token of its row
            final = torch.where(final == layout.columns, layout.width, final)
        stamps = self.accepted_at[:, : layout.rows * layout.width].unflatten(1, (layout.rows, layout.width))
        column = torch.arange(layout.width, device=rows.device)
        stamps.masked_fill_((stamps < 0) & (column < final[..., None]), self.passes)
        if layout.tail:  # it is final together with the last row
            stamps = self.accepted_at[:, layout.rows * layout.width : layout.num_tokens]
            stamps.masked_fill_((stamps < 0) & (final == layout.width).all(1, keepdim=True), self.passes)
        self.committed = (self.acceptance_map >= 0).sum(1)
        self.passes += 1
        return self

    def synchronize(self) -> None:
        layout, self.advances = self.layout, []
        for index, (rows, gains) in enumerate(zip(self.images, self.read(self.gained))):
            new = 0
            for row in rows[self.first[index] :]:
                if row.growing:
                    new += gains[row.number]
                    row.drafted = max(row.drafted, row.final + row.slots)
                    row.final += gains[row.number]
                    if row.final == layout.columns:
                        new += layout.width - layout.columns
            while self.first[index] < layout.rows and rows[self.first[index]].final == layout.columns:
                self.first[index] += 1
            if self.first[index] == layout.rows and new:
                new += len(layout.tail)
            self.advances.append(new)
        self.counts = [count + gain for count, gain in zip(self.counts, self.advances)]


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
        """`[B, Q, V]`: noise to sample with that is new in every pass."""
        return self.noise.exponential(self.positions, Purpose.RESIDUAL, self.target.shape[-1], self.state.passes)


class RowParallelScheduler(DecodingScheduler):
    """Base of the family. Subclasses set `label` and `paper`, have a setting `delay` and make its choices.

    As in a window: how a column that enters is drafted (`draft`), whether a draft is accepted (`accept`), how many
    columns a row gains by that (`gains`), and what takes the places from the first rejection on (`redraft`).

    The keys and values of a final token are written by the pass after the one that made it final, which also is the
    first pass that lets other rows see it. A complete row therefore gets one more slot, for its last token.
    """

    raster_only = True
    recordable = False  # the host lays out rows anew for every pass
    state_type = RowDecodingState

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

    def look_up(self, slot: RowSlot, first: int, layout: ImageTokenLayout) -> tuple[int, ...]:
        """What the choices need to know of a slot beside its law; `first` is the image's first row to be completed."""
        return ()

    def delay(self, layout: ImageTokenLayout) -> int:
        """How many columns of the row above must be final before a row opens; by default a quarter of them."""
        return min(self.config.delay or -(-layout.columns // 4), layout.columns)

    def draft(
        self, positions: torch.Tensor, numbers: tuple[torch.Tensor, ...], state: RowDecodingState, noise: PositionNoise
    ) -> None:
        """Guess tokens for columns that have none, `[B, F]`; only called where `drafts` says there are such."""
        raise NotImplementedError

    def open_rows(self, layout: ImageTokenLayout) -> int:
        """How many rows may be open at a time: as many as fit side by side at their delay, and one."""
        return min(layout.rows, -(-layout.columns // self.delay(layout)) + 1)

    def sizes(self, layout: ImageTokenLayout) -> list[int]:
        """Numbers of slots that a query may have, so that there are few shapes; the last is the most it may need."""
        rows, drafts = self.open_rows(layout), self.drafts(layout)
        most = rows * (drafts + 2)
        # Drafts stay below what is final in the row above, so that those of all rows are no more than the columns.
        # Rows that close at once, each with a slot for its last token, are rare.
        usual = min(most, min(layout.columns, rows * drafts) + rows + 1)
        return [*(-(-usual * step // SIZES) for step in range(1, SIZES + 1)), most]

    def margin(self, layout: ImageTokenLayout) -> int:
        # Padding slots stand after the image, because no two slots of a pass may share a position.
        return self.sizes(layout)[-1] + 1

    def ask(self, state: RowDecodingState, noise: PositionNoise) -> Query:
        """Returns a query of as many slots as the image with the most of them needs, or some more."""
        layout = state.layout
        fresh, slots = zip(*(self._lay_out(rows, first, layout) for rows, first in zip(state.images, state.first)))
        entering, needed = (max(map(len, images)) for images in (fresh, slots))
        fresh = _padded(fresh, state, entering)
        slots = _padded(slots, state, next(size for size in self.sizes(layout) if size >= needed))
        told_of_fresh, told = self._upload(fresh, slots, state).tensor_split([entering], 1)
        if entering:
            _, _, _, places, *looked_up = told_of_fresh.unbind(-1)
            self.draft(places, tuple(looked_up), state, noise)
        predicts, sources, own, state.targets, *looked_up = told.unbind(-1)
        state.numbers = tuple(looked_up)
        used = max(slot.row.number for image in slots for slot in image if slot.open) + 1  # rows from the top
        canvas = torch.arange(state.extent(used * layout.width), device=predicts.device)  # [S]
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
        slots = RowSlots(probabilities, query.predicts, state, noise, state.numbers)
        slots.keep = self.accept(slots)
        slots.gained = self.gains(slots)
        state.canvas.scatter_(1, state.targets, self.redraft(slots))
        return state.advance(slots.gained)

    def _upload(self, fresh: list[list[RowSlot]], slots: list[list[RowSlot]], state: RowDecodingState) -> torch.Tensor:
        """What the device is told of a pass, the one copy to it: `[B, F + Q, C]` int64, of entering and all slots.

        The C numbers of a slot are the position that it predicts, that of the token it feeds, where its row begins,
        where on the canvas it leaves its token, and what `look_up` says.
        """
        layout, nowhere = state.layout, state.canvas.shape[1] - 1
        table = [
            [
                (
                    slot.position,
                    _source(slot, layout),
                    slot.row.number * layout.width - 1,
                    slot.position if slot.open else nowhere,
                    *self.look_up(slot, first, layout),
                )
                for slot in (*new, *all_slots)
            ]
            for first, new, all_slots in zip(state.first, fresh, slots)
        ]
        return state.canvas.new_tensor(table)

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
                after = rows[row.number + 1 :]
                needed = not row.closed and after and (layout.row_end is not None or after[0].final > 0)
                row.growing, row.closed, row.slots = False, True, int(bool(needed))
            else:
                row.growing = row.final > 0 or row.above >= self.delay(layout)
                # Drafts stay below what is final in the row above, and leave the last column to the token after them.
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


def _padded(slots: tuple[list[RowSlot], ...], state: RowDecodingState, length: int) -> list[list[RowSlot]]:
    """`length` slots for every image; those in excess stand after it."""
    after = state.layout.num_tokens + 1
    return [
        present + [RowSlot(rows[-1], 0, 0, after + index, open=False) for index in range(len(present), length)]
        for present, rows in zip(slots, state.images)
    ]


def _source(slot: RowSlot, layout: ImageTokenLayout) -> int:
    """The position of the token that a slot feeds."""
    row = slot.row
    if layout.row_end is None and slot.open and slot.column == 0 and row.above < layout.columns:
        # The row opens before the last token of the row above is known: the latest one stands in for it.
        return (row.number - 1) * layout.width + row.above - 1
    return max(slot.position - 1, 0)
