"""The loop that row-parallel decoders share: several rows of the image grow at once, each from its own left end.

A row opens when the row above is `delay` columns ahead. A member of the family decides what the slots of the open
rows become. The context of a token lacks what the rows above have not drawn yet, so all members are approximate.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise
from ..decoding.state import DecodingState, Query
from .base import DecodingScheduler
from .verification import leading


@dataclass(kw_only=True)
class RowDecodingState(DecodingState):
    """The state of one batch whose rows grow side by side.

    Attributes:
        row_counts: `[B, R]` int64: columns of each row that are final, from the left, without the row end.
        drafted: `[B, R]` int64: columns of each row that have a token, final or not.
        closed: `[B, R]` bool: complete rows that need no slot any more.
        slots: `[B, R]` int64: slots of each row in the next pass.
        fresh: `[B, R]` int64: columns that the next pass guesses for the first time.
        planned: the slots of the pass that is running.
        demand: the most slots and fresh columns of any image, and the rows in use (host).
    """

    row_counts: torch.Tensor
    closed: torch.Tensor
    slots: torch.Tensor
    fresh: torch.Tensor
    planned: "RowSlots | None" = None
    demand: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def empty(
        cls,
        layout: ImageTokenLayout,
        batch_size: int,
        margin: int,
        law_slots: int = 0,
        device: torch.device | str = "cpu",
    ) -> "RowDecodingState":
        """Forced tokens alone are on the canvas."""
        fields = vars(DecodingState.empty(layout, batch_size, margin, law_slots, device))
        zeros = torch.zeros(batch_size, layout.rows, dtype=torch.int64, device=device)
        fields["drafted"] = zeros.clone()
        state = cls(**fields, row_counts=zeros, closed=zeros.bool(), slots=zeros.clone(), fresh=zeros.clone())
        if state.forced is not None:
            state.canvas += state.forced.clamp(min=0)
        return state

    @property
    def above(self) -> torch.Tensor:
        """`[B, R]`: columns that are final in the row above; the first row has nothing to wait for."""
        first = torch.full_like(self.row_counts[:, :1], self.layout.columns)
        return torch.cat([first, self.row_counts[:, :-1]], -1)

    @property
    def complete(self) -> torch.Tensor:
        """`[B, R]` bool."""
        return self.row_counts == self.layout.columns

    def synchronize(self) -> None:
        rows = torch.arange(1, self.layout.rows + 1, device=self.slots.device)
        used = (rows * (self.slots > 0)).amax(-1)
        numbers = torch.stack([self.committed, self.slots.sum(-1), self.fresh.sum(-1), used], -1).tolist()
        counts, *demand = zip(*numbers)
        self.advances = [new - old for new, old in zip(counts, self.counts)]
        self.counts = list(counts)
        self.demand = tuple(max(numbers) for numbers in demand)


@dataclass
class RowSlots:
    """The slots of one pass, rows of an image one after another: the first of a row feeds its last final token.

    Attributes:
        row: `[B, Q]` int64.
        offset: `[B, Q]` int64: number of the slot within its row.
        column: `[B, Q]` int64: the column that the slot predicts; `columns` for the slot of a complete row, whose
            output is not used.
        positions: `[B, Q]` int64: raster index of what the slot predicts.
        open: `[B, Q]` bool: whether it predicts anything; False for complete rows and for padding.
    """

    row: torch.Tensor
    offset: torch.Tensor
    column: torch.Tensor
    positions: torch.Tensor
    open: torch.Tensor

    def of_row(self, values: torch.Tensor) -> torch.Tensor:
        """`[B, R]` -> `[B, Q]`."""
        return values.gather(1, self.row)

    def first_of_row(self, values: torch.Tensor, rows: int) -> torch.Tensor:
        """`[B, Q]` bool -> `[B, R]` bool: the value at the first slot of each row, False where a row has none."""
        chosen = (values & self.open & (self.offset == 0)).long()
        return torch.zeros_like(chosen[:, :1]).repeat(1, rows).scatter_add_(1, self.row, chosen) > 0


class RowParallelScheduler(DecodingScheduler):
    """Base of the family. Subclasses set `label` and `paper`, have a setting `delay`, define `drafts` and `decide`.

    The keys and values of a final token are written by the pass after the one that made it final, which also is the
    first pass that lets other rows see it. A complete row therefore gets one more slot, for its last token.
    """

    @abstractmethod
    def drafts(self, layout: ImageTokenLayout) -> int:
        """How many drafts a row may verify per pass."""

    @abstractmethod
    def decide(
        self, target: torch.Tensor, slots: RowSlots, state: RowDecodingState, noise: PositionNoise
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens for the positions of all slots `[B, Q]`, and how many columns each row gains `[B, R]` int64."""

    def delay(self, layout: ImageTokenLayout) -> int:
        """How many columns of the row above must be final before a row opens; by default a quarter of them."""
        return min(self.config.delay or -(-layout.columns // 4), layout.columns)

    def law_slots(self, layout: ImageTokenLayout) -> int:
        """Positions whose laws are kept."""
        return 0

    def initialise(self, slots: RowSlots, state: RowDecodingState, noise: PositionNoise) -> None:
        """Guess tokens for columns that have none, in place; only called where `drafts` says there are such."""
        raise NotImplementedError

    def open_rows(self, layout: ImageTokenLayout) -> int:
        """How many rows may be open at a time: as many as fit side by side at their delay, and one."""
        return min(layout.rows, -(-layout.columns // self.delay(layout)) + 1)

    def margin(self, layout: ImageTokenLayout) -> int:
        # Padding slots stand behind the image, because no two slots of a pass may share a position.
        return self.open_rows(layout) * (self.drafts(layout) + 2)

    def start(self, layout: ImageTokenLayout, batch_size: int, device: torch.device | str = "cpu") -> RowDecodingState:
        state = RowDecodingState.empty(layout, batch_size, self.margin(layout) + 1, self.law_slots(layout), device)
        self._schedule(state)
        state.synchronize()
        return state

    def plan(self, state: RowDecodingState, noise: PositionNoise) -> Query:
        """Returns a query of as many slots as the image with the most of them needs."""
        layout = state.layout
        length, fresh, rows = state.demand
        if fresh:
            self.initialise(_locate(state, state.drafted, state.fresh, fresh), state, noise)
        slots = state.planned = _locate(state, state.row_counts, state.slots, length)
        positions = slots.positions - 1
        token_ids = state.canvas.gather(1, positions.clamp(min=0))
        if layout.row_end is None:
            token_ids = torch.where(*self._stand_ins(state, slots), token_ids)

        canvas = torch.arange(rows * layout.width, device=positions.device)  # [S]
        final = layout.column(canvas) < state.row_counts.repeat_interleave(layout.width, 1)[:, : len(canvas)]
        if layout.row_end is not None:
            final = final | (layout.column(canvas) == layout.columns)  # known in advance, fed when the next row opens
        # A row sees its own drafts, and what it was opened with: other rows do not.
        own = canvas >= (slots.row * layout.width - 1)[..., None]  # [B, Q, S]
        visible = (canvas <= positions[..., None]) & (final[:, None] | own)
        return Query(token_ids, positions, visible)

    def step(
        self, probabilities: torch.Tensor, query: Query, state: RowDecodingState, noise: PositionNoise
    ) -> RowDecodingState:
        layout, slots = state.layout, state.planned
        tokens, gained = self.decide(probabilities, slots, state, noise)
        nowhere = state.canvas.shape[1] - 1
        state.canvas.scatter_(1, slots.positions.masked_fill(~slots.open, nowhere), tokens)

        complete = state.complete
        state.drafted = torch.where(
            complete, state.drafted, torch.maximum(state.drafted, state.row_counts + state.slots)
        )
        state.row_counts = state.row_counts + gained
        state.closed = complete
        # A row end is final together with the last token of its row, the tail together with the last row.
        ends = state.row_counts.masked_fill(state.complete, layout.width)
        final = torch.arange(layout.width, device=tokens.device) < ends[..., None]  # [B, R, width]
        tail = state.complete.all(-1, keepdim=True).expand(-1, len(layout.tail))
        final = torch.cat([final.flatten(1), tail], -1)  # [B, N]
        stamps = state.accepted_at[:, : layout.num_tokens]
        stamps.masked_fill_(final & (stamps < 0), state.passes)
        state.committed = final.sum(-1)
        state.passes += 1
        self._schedule(state)
        return state

    def _schedule(self, state: RowDecodingState) -> None:
        """Which rows have slots in the next pass, and how many."""
        layout, counts, above, complete = state.layout, state.row_counts, state.above, state.complete
        rows = torch.arange(layout.rows, device=counts.device)
        ready = (above >= self.delay(layout)) & (rows < leading(complete)[:, None] + self.open_rows(layout))
        growing = ~complete & (ready | (counts > 0))
        # Drafts stay below what is final in the row above, and leave the last column to the token behind them.
        reach = torch.where(above == layout.columns, layout.columns, above + 1)
        drafts = (reach.clamp(max=layout.columns) - 1 - counts).clamp(0, self.drafts(layout))
        # The last token of a complete row is fed once more, unless it opens the next row in the same pass.
        unwritten = complete & ~state.closed & (rows < layout.rows - 1)
        if layout.row_end is None:
            unwritten[:, :-1] &= counts[:, 1:] > 0
        state.slots = torch.where(growing, 1 + drafts, unwritten.long())
        state.fresh = torch.where(growing, (counts + drafts - state.drafted).clamp(min=0), 0)

    def _stand_ins(self, state: RowDecodingState, slots: RowSlots) -> tuple[torch.Tensor, torch.Tensor]:
        """Where a row opens before the last token of the row above is known, and the latest token to use instead."""
        above = slots.of_row(state.above)  # [B, Q]
        missing = slots.open & (slots.column == 0) & (above < state.layout.columns)
        latest = (slots.row - 1) * state.layout.width + above - 1
        return missing, state.canvas.gather(1, latest.clamp(min=0))


def _locate(state: RowDecodingState, start: torch.Tensor, counts: torch.Tensor, length: int) -> RowSlots:
    """Lay `counts` `[B, R]` slots per row, from column `start` `[B, R]` on, side by side in `length` slots."""
    layout = state.layout
    ends = counts.cumsum(-1)
    index = torch.arange(length, device=counts.device).expand(len(counts), -1).contiguous()  # [B, Q]
    row = torch.searchsorted(ends, index, right=True)
    used = row < layout.rows
    row = row.clamp(max=layout.rows - 1)
    offset = index - (ends - counts).gather(1, row)
    column = start.gather(1, row) + offset
    positions = torch.where(used, row * layout.width + column, layout.num_tokens + 1 + index)
    return RowSlots(row, offset, column, positions, used & (column < layout.columns))
