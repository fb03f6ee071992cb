"""The loop that row-parallel decoders share: several rows of the image grow at once, each from its own left end.

A row opens when the row above is `delay` columns ahead. A member of the family decides what the slots of the open
rows become. The context of a token lacks what the rows above have not drawn yet, so all members are approximate.

How far each row has come is known to the host, which lays out the next pass: these are small tables, and a device
would take longer to start on them than to go through them.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise
from ..decoding.state import DecodingState, Query
from .base import DecodingScheduler


@dataclass(kw_only=True)
class RowDecodingState(DecodingState):
    """The state of one batch whose rows grow side by side. Arrays are on the host.

    Attributes:
        row_counts: `[B, R]` int64: columns of each row that are final, from the left, without the row end.
        row_drafts: `[B, R]` int64: columns of each row that have a token, final or not.
        closed: `[B, R]` bool: complete rows that need no slot any more.
        growing: `[B, R]` bool: rows that gain tokens in this pass.
        row_slots: `[B, R]` int64: slots of each row in this pass.
        slots: where they are.
        gained: `[B, R]` int64: columns that the growing rows have gained, on the device.
    """

    row_counts: np.ndarray
    row_drafts: np.ndarray
    closed: np.ndarray
    growing: np.ndarray | None = None
    row_slots: np.ndarray | None = None
    slots: "RowSlots | None" = None
    gained: torch.Tensor | None = None

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
        zeros = np.zeros((batch_size, layout.rows), dtype=np.int64)
        state = cls(**fields, row_counts=zeros, row_drafts=zeros, closed=zeros.astype(bool))
        if state.forced is not None:
            state.canvas += state.forced.clamp(min=0)
        return state

    @property
    def above(self) -> np.ndarray:
        """`[B, R]`: columns that are final in the row above; the first row has nothing to wait for."""
        first = np.full_like(self.row_counts[:, :1], self.layout.columns)
        return np.concatenate([first, self.row_counts[:, :-1]], -1)

    @property
    def complete(self) -> np.ndarray:
        """`[B, R]` bool."""
        return self.row_counts == self.layout.columns

    def upload(self, *arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Integer arrays of one shape, to where the canvas is, in one copy."""
        return torch.from_numpy(np.stack(arrays)).to(self.canvas.device).unbind(0)

    def synchronize(self) -> None:
        layout, complete = self.layout, self.complete
        reached = np.maximum(self.row_drafts, self.row_counts + self.row_slots)
        self.row_drafts = np.where(complete, self.row_drafts, reached)
        self.row_counts = self.row_counts + np.where(self.growing, self.gained.cpu().numpy(), 0)
        self.closed = complete
        # A row end is final together with the last token of its row, the tail together with the last row.
        ends = np.where(self.complete, layout.width, self.row_counts)
        final = np.arange(layout.width) < ends[..., None]  # [B, R, width]
        tail = np.repeat(self.complete.all(-1, keepdims=True), len(layout.tail), -1)
        final = np.concatenate([final.reshape(len(final), -1), tail], -1)  # [B, N]
        counts = final.sum(-1)
        self.committed, self.advances = self.upload(counts)[0], (counts - self.counts).tolist()
        self.counts = counts.tolist()
        stamps = self.acceptance_map
        stamps.masked_fill_(torch.from_numpy(final).to(stamps.device) & (stamps < 0), self.passes - 1)


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

    row: np.ndarray
    offset: np.ndarray
    column: np.ndarray
    positions: np.ndarray
    open: np.ndarray

    def of_row(self, values: np.ndarray) -> np.ndarray:
        """`[B, R]` -> `[B, Q]`."""
        return np.take_along_axis(values, self.row, 1)


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
        self, target: torch.Tensor, positions: torch.Tensor, state: RowDecodingState, noise: PositionNoise
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens for the `positions` of all slots `[B, Q]`, and how many columns each growing row gains `[B, R]`."""

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

    def first_open(self, state: RowDecodingState) -> np.ndarray:
        """The first row of each image that is not complete: `[B, 1]` int64."""
        return state.complete.cumprod(-1).sum(-1, keepdims=True)

    def margin(self, layout: ImageTokenLayout) -> int:
        # Padding slots stand behind the image, because no two slots of a pass may share a position.
        return self.open_rows(layout) * (self.drafts(layout) + 2)

    def start(self, layout: ImageTokenLayout, batch_size: int, device: torch.device | str = "cpu") -> RowDecodingState:
        return RowDecodingState.empty(layout, batch_size, self.margin(layout) + 1, self.law_slots(layout), device)

    def plan(self, state: RowDecodingState, noise: PositionNoise) -> Query:
        """Returns a query of as many slots as the image with the most of them needs."""
        layout = state.layout
        fresh = self._schedule(state)
        if fresh.any():
            self.initialise(_locate(layout, state.row_drafts, fresh), state, noise)
        slots = state.slots = _locate(layout, state.row_counts, state.row_slots)
        sources = slots.positions - 1
        if layout.row_end is None:
            # Where a row opens before the last token of the row above is known, the latest one stands in for it.
            above = slots.of_row(state.above)
            missing = slots.open & (slots.column == 0) & (above < layout.columns)
            sources = np.where(missing, (slots.row - 1) * layout.width + above - 1, sources)
        positions, sources, own = state.upload(slots.positions - 1, sources.clip(min=0), slots.row * layout.width - 1)

        used = int(state.row_slots.any(0).nonzero()[0].max()) + 1  # rows from the top
        column = np.arange(layout.width)
        final = column < state.row_counts[:, :used, None]  # [B, rows, width]
        if layout.row_end is not None:
            final = final | (column == layout.columns)  # known in advance, fed when the next row opens
        final = torch.from_numpy(final.reshape(len(final), 1, -1)).to(positions.device)  # [B, 1, S]
        canvas = torch.arange(final.shape[-1], device=positions.device)
        # A row sees its own drafts, and what it was opened with: other rows do not.
        visible = (canvas <= positions[..., None]) & (final | (canvas >= own[..., None]))
        return Query(state.canvas.gather(1, sources), positions, visible)

    def step(
        self, probabilities: torch.Tensor, query: Query, state: RowDecodingState, noise: PositionNoise
    ) -> RowDecodingState:
        positions = query.positions + 1
        tokens, state.gained = self.decide(probabilities, positions, state, noise)
        unused = torch.from_numpy(~state.slots.open).to(positions.device)
        state.canvas.scatter_(1, positions.masked_fill(unused, state.canvas.shape[1] - 1), tokens)
        state.passes += 1
        return state

    def _schedule(self, state: RowDecodingState) -> np.ndarray:
        """Which rows have slots in this pass, and how many; returns how many columns are to be guessed, `[B, R]`."""
        layout, counts, above, complete = state.layout, state.row_counts, state.above, state.complete
        rows = np.arange(layout.rows)
        ready = (above >= self.delay(layout)) & (rows < self.first_open(state) + self.open_rows(layout))
        growing = state.growing = ~complete & (ready | (counts > 0))
        # Drafts stay below what is final in the row above, and leave the last column to the token behind them.
        reach = np.where(above == layout.columns, layout.columns, above + 1)
        drafts = (reach.clip(max=layout.columns) - 1 - counts).clip(0, self.drafts(layout))
        # The last token of a complete row is fed once more, unless it opens the next row in the same pass.
        unwritten = complete & ~state.closed & (rows < layout.rows - 1)
        if layout.row_end is None:
            unwritten[:, :-1] &= counts[:, 1:] > 0
        state.row_slots = np.where(growing, 1 + drafts, unwritten)
        return np.where(growing, (counts + drafts - state.row_drafts).clip(min=0), 0)


def _locate(layout: ImageTokenLayout, start: np.ndarray, counts: np.ndarray) -> RowSlots:
    """Lay `counts` `[B, R]` slots per row, from column `start` `[B, R]` on, side by side."""
    ends = counts.cumsum(-1)
    index = np.arange(ends[:, -1].max())  # [Q]
    row = (index[:, None] >= ends[:, None]).sum(-1)  # [B, Q]
    used = row < layout.rows
    row = row.clip(max=layout.rows - 1)
    offset = index - np.take_along_axis(ends - counts, row, 1)
    column = np.take_along_axis(start, row, 1) + offset
    positions = np.where(used, row * layout.width + column, layout.num_tokens + 1 + index)
    return RowSlots(row, offset, column, positions, used & (column < layout.columns))
