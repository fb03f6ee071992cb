"""Parallel Jacobi decoding: Speculative Jacobi Decoding in several rows of the image at once."""

import torch
from diffusers.configuration_utils import register_to_config

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.sampling import race
from .base import check_choice, check_count, check_window
from .drafting import INITIALISERS, FreshSlots, one_hot
from .row_parallel import RowDecodingState, RowParallelScheduler, RowSlots
from .verification import leading, residual, speculative_accept

# Left of a row that opens there may be no token yet.
ROW_INITIALISERS = tuple(name for name in INITIALISERS if not name.endswith("left"))


class ParallelJacobiScheduler(RowParallelScheduler):
    """PJD (Liao et al. 2026, arXiv 2606.05703): every open row verifies a window of drafts of its own.

    Slots see the final tokens of all rows above and the drafts of their own row only. A `delay` of a whole row is
    lossless: Speculative Jacobi Decoding within rows.

    Args:
        window: drafts verified per row and pass, at least 1; they stay below what is final in the row above.
        initialise: how a column that enters the window is guessed, a key of `INITIALISERS` but for the `-left` ones.
        delay: columns of the row above that must be final before a row opens; None is a quarter of the row.
        coupled: redraft by maximal coupling, as `CoupledSJDScheduler`, instead of anew, as `SJDScheduler`.
    """

    label = "approximate"
    paper = "Liao et al. 2026, arXiv 2606.05703"

    @register_to_config
    def __init__(
        self, window: int = 16, initialise: str = "law-above", delay: int | None = None, coupled: bool = False
    ):
        check_window(window)
        check_choice("initialise", initialise, ROW_INITIALISERS)
        if delay is not None:
            check_count("delay", delay)

    def drafts(self, layout: ImageTokenLayout) -> int:
        return min(self.window, layout.columns - 1)

    def law_slots(self, layout: ImageTokenLayout) -> int:
        # The open rows, the one above them, and one for the slots that store nothing.
        return (self.open_rows(layout) + 2) * layout.width

    def decide(
        self, target: torch.Tensor, slots: RowSlots, state: RowDecodingState, noise: PositionNoise
    ) -> tuple[torch.Tensor, torch.Tensor]:
        has_draft = slots.open & (slots.offset < slots.of_row(state.slots) - 1)
        addresses = self._addresses(slots, state)
        draft_law = state.laws.read(addresses).masked_fill(~has_draft[..., None], 0.0)
        drafts = state.canvas.gather(1, slots.positions)
        uniforms = noise.uniform(slots.positions, Purpose.ACCEPT, state.passes)
        keep = has_draft & speculative_accept(target, draft_law, drafts, uniforms)

        # [B, Q] -> [B, R, W + 1]: leading acceptances are counted per row; other slots share a place behind.
        depth = self.drafts(state.layout) + 1
        grid = keep.new_zeros(len(keep), state.layout.rows * depth + 1)
        places = (slots.row * depth + slots.offset).masked_fill(~has_draft, grid.shape[1] - 1)
        grid.scatter_(1, places, keep)
        accepted = leading(grid[:, :-1].unflatten(1, (-1, depth)).flatten(0, 1)).unflatten(
            0, (len(keep), -1)
        )  # [B, R]

        front = slots.of_row(accepted)
        law = residual(target, draft_law)
        if not self.config.coupled:
            law = torch.where((slots.offset > front)[..., None], target, law)
            keep = keep & (slots.offset < front)
        exponential = noise.exponential(slots.positions, Purpose.RESIDUAL, target.shape[-1], state.passes)
        tokens = torch.where(keep, drafts, race(law, exponential))
        state.laws.write(addresses, target)
        return tokens, torch.where((state.slots > 0) & ~state.complete, accepted + 1, 0)

    def initialise(self, slots: RowSlots, state: RowDecodingState, noise: PositionNoise) -> None:
        nowhere = state.canvas.shape[1] - 1
        positions = slots.positions.masked_fill(~slots.open, nowhere)
        vocabulary_size = state.layout.vocabulary_size
        exponential = noise.exponential(positions, Purpose.INITIALISE, vocabulary_size, state.passes)
        known = positions - 1  # the row above is final here, so no source is out of reach
        tokens, laws = INITIALISERS[self.config.initialise](FreshSlots(positions, state, exponential, known))
        state.laws.write(self._addresses(slots, state), one_hot(tokens, vocabulary_size) if laws is None else laws)
        state.canvas.scatter_(1, positions, tokens)

    def _addresses(self, slots: RowSlots, state: RowDecodingState) -> torch.Tensor:
        """Where the laws of the slots are kept: their position, or the row below all that may be open."""
        unused = (leading(state.complete) + self.open_rows(state.layout)) * state.layout.width  # [B]
        return torch.where(slots.open, slots.positions, unused[:, None])
