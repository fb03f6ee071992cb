"""Parallel Jacobi decoding: Speculative Jacobi Decoding in several rows of the image at once."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.sampling import race
from .declaration import LONGEST, Bound, Card, Setting
from .drafting import INITIALISE, INITIALISERS, FreshSlots, one_hot
from .row_parallel import ROW_SHARES, RowDecodingState, RowParallelScheduler, RowSlot
from .rules.speculative import Drafted, Speculative

RowWindow = Annotated[
    int,
    Setting(
        "Tokens guessed ahead per row and pass. Larger windows save passes until guesses stop being accepted, at the "
        "price of slower passes and more memory.",
        least=1,
        most=LONGEST,
    ),
]
# Left of a row that opens there may be no token yet.
RowInitialise = Annotated[
    str, replace(INITIALISE, choices=tuple(name for name in INITIALISERS if not name.endswith("left")))
]
Delay = Annotated[
    int | None,
    Setting(
        "How many tokens of the row above must be final before a row starts. Smaller is faster and less faithful; -1 "
        "is a quarter of the row, a whole row is lossless.",
        least=1,
        most=LONGEST,
    ),
]
Coupled = Annotated[
    bool,
    Setting(
        "Keep new guesses close to the old ones, as Coupled Speculative Jacobi does. Usually fewer passes; the "
        "quality stays the same."
    ),
]


class ParallelJacobiScheduler(RowParallelScheduler):
    """PJD (Liao et al. 2026, arXiv 2606.05703): every open row verifies a window of drafts of its own.

    Slots see the final tokens of all rows above and the drafts of their own row only. A `delay` of a whole row is
    lossless: Speculative Jacobi Decoding within rows.

    Args:
        window: drafts verified per row and pass; they stay below what is final in the row above.
        initialise: how a column that enters the window is guessed, a key of `INITIALISERS` but for the `-left` ones.
        delay: columns of the row above that must be final before a row opens; None is a quarter of the row.
        coupled: redraft by maximal coupling, as `CoupledSJDScheduler`, instead of anew, as `SJDScheduler`.
    """

    label = "approximate"
    paper = "Liao et al. 2026, arXiv 2606.05703"
    card = Card(
        "Parallel Jacobi (PJD)",
        "Speculative Jacobi in several rows at once. Very few passes; a token does not see the right end of the row "
        "above, so large shapes may break.",
        "For drafts and large pictures. If shapes break, raise delay.",
    )
    bounds = (Bound("PJD", "delay", ROW_SHARES, by_row=True),)
    acceptance = Speculative()

    @register_to_config
    def __init__(
        self,
        window: RowWindow = 16,
        initialise: RowInitialise = "law-above",
        delay: Delay = None,
        coupled: Coupled = False,
    ):
        pass

    def drafts(self, layout: ImageTokenLayout) -> int:
        return min(self.window, layout.columns - 1)

    def law_slots(self, layout: ImageTokenLayout) -> int:
        # The open rows, the one above them, and one for the slots that store nothing.
        return (self.open_rows(layout) + 2) * layout.width

    def decide(
        self, target: torch.Tensor, positions: torch.Tensor, state: RowDecodingState, noise: PositionNoise
    ) -> tuple[torch.Tensor, torch.Tensor]:
        depth, address = self.drafts(state.layout), self._address(state.layout)
        row, offset, drafted, addresses = state.of_slots(
            lambda slot, first: (
                slot.row.number,
                slot.offset if slot.open else depth,
                slot.open and slot.offset + 1 < slot.row.slots,
                address(slot, first),
            )
        )
        drafted = drafted > 0
        drafts = state.canvas.gather(1, positions)
        uniforms = noise.uniform(positions, Purpose.ACCEPT, state.passes)
        span = max(depth, 1)
        proposal = Drafted(target, drafts, partial(state.laws.at, addresses), span, offset.clamp(max=span - 1))
        keep = drafted & self.acceptance.accept(proposal, uniforms)

        # The first slot of a row that is not kept; the last one of a growing row never is.
        accepted = row.new_full((state.batch_size, state.layout.rows), depth)
        accepted.scatter_reduce_(1, row, offset.masked_fill(keep, depth), "amin")  # [B, R]
        if not self.config.coupled:
            front = accepted.gather(1, row)
            keep = keep & (offset < front)
            drafted = drafted & (offset <= front)  # those behind are drawn anew

        # Most slots are drawn anew: to pick them out would cost more than it saves.
        draft_law = state.laws.read(addresses).masked_fill_(~drafted[..., None], 0.0)
        exponential = noise.exponential(positions, Purpose.RESIDUAL, target.shape[-1], state.passes)
        law = self.acceptance.residual(target, draft_law, drafts)
        tokens = torch.where(keep, drafts, race(law, exponential))
        state.laws.write(addresses, target)
        return tokens, accepted + 1

    def initialise(self, state: RowDecodingState, noise: PositionNoise) -> None:
        vocabulary_size, address = state.layout.vocabulary_size, self._address(state.layout)
        nowhere = state.canvas.shape[1] - 1
        positions, addresses = state.of_slots(
            lambda slot, first: (slot.position if slot.open else nowhere, address(slot, first))
        )
        exponential = noise.exponential(positions, Purpose.INITIALISE, vocabulary_size, state.passes)
        known = positions - 1  # the row above is final here, so no source is out of reach
        tokens, laws = INITIALISERS[self.config.initialise](FreshSlots(positions, state, exponential, known))
        state.laws.write(addresses, one_hot(tokens, vocabulary_size) if laws is None else laws)
        state.canvas.scatter_(1, positions, tokens)

    def _address(self, layout: ImageTokenLayout) -> Callable[[RowSlot, int], int]:
        """Where the law of a slot is kept: its position, or the row below all that may be open."""
        below, width = self.open_rows(layout), layout.width
        return lambda slot, first: slot.position if slot.open else (first + below) * width
