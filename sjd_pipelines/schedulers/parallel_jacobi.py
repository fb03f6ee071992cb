"""Parallel Jacobi decoding: Speculative Jacobi Decoding in several rows of the image at once."""

from dataclasses import replace
from functools import partial
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import LONGEST, Card, Setting
from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.sampling import race
from .declaration import Bound
from .drafting import INITIALISE, INITIALISERS, FreshSlots, one_hot
from .row_parallel import ROW_SHARES, RowDecodingState, RowParallelScheduler, RowSlot, RowSlots
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
Release = Annotated[
    bool,
    Setting(
        "Keep and redraw guesses as PJD's published code does, with a bias of its own. Its other settings are window "
        "8, delay 9 and initialise random. Not together with coupled."
    ),
]


class ParallelJacobiScheduler(RowParallelScheduler):
    """PJD (Liao et al. 2026, arXiv 2606.05703): every open row verifies a window of drafts of its own.

    Slots see the final tokens of all rows above and the drafts of their own row only. A `delay` of a whole row is
    lossless: Speculative Jacobi Decoding within rows.

    The published code (boyaliao/PJD) differs: a row below the first commits accepted drafts alone, and no token after
    them; a draft after the first rejection stays, with its old law, where p > q / 2; its window is 8, its delay 9, and
    it starts from random tokens. `release=True` does the former two, which no delay makes lossless; its settings are
    `window=8, delay=9, initialise="random"`.

    Args:
        window: drafts verified per row and pass; they stay below what is final in the row above.
        initialise: how a column that enters the window is guessed, a key of `INITIALISERS` but for the `-left` ones.
        delay: columns of the row above that must be final before a row opens; None is a quarter of the row.
        coupled: redraft by maximal coupling, as `CoupledSJDScheduler`, instead of anew, as `SJDScheduler`.
        release: redraft and commit as the published code.
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
        release: Release = False,
    ):
        if coupled and release:
            raise ValueError("release=True redrafts in a way of its own; leave coupled=False.")

    def drafts(self, layout: ImageTokenLayout) -> int:
        return min(self.window, layout.columns - 1)

    def law_slots(self, layout: ImageTokenLayout) -> int:
        # The open rows, the one above them, and one for the slots that store nothing.
        return (self.open_rows(layout) + 2) * layout.width

    def look_up(self, slot: RowSlot, first: int, layout: ImageTokenLayout) -> tuple[int, ...]:
        """Row of the slot, its number there, whether it has a draft, where its law is, and if it leads."""
        row, leads = slot.row.number, slot.row.number == first
        if slot.open:
            return row, slot.offset, slot.offset + 1 < slot.row.slots, slot.position, leads
        # The row below all that may be open keeps what is of no use.
        return row, self.drafts(layout), False, (first + self.open_rows(layout)) * layout.width, leads

    def accept(self, slots: RowSlots) -> torch.Tensor:
        _, offset, drafted, addresses, *_ = slots.numbers
        span = max(self.drafts(slots.state.layout), 1)
        law_at = partial(slots.state.laws.at, addresses)
        slots.drafted = Drafted(slots.target, slots.drafts, law_at, span, offset.clamp(max=span - 1))
        return (drafted > 0) & slots.state.acceptance.accept(slots.drafted, slots.uniforms)

    def gains(self, slots: RowSlots) -> torch.Tensor:
        row, offset, *_ = slots.numbers
        depth, rows = self.drafts(slots.state.layout), slots.state.layout.rows
        # The first slot of a row that is not kept; the last one of a growing row never is.
        accepted = row.new_full((slots.state.batch_size, rows), depth)
        accepted.scatter_reduce_(1, row, offset.masked_fill(slots.keep, depth), "amin")  # [B, R]
        if self.config.release:  # only the row that leads commits the token after the accepted drafts
            return accepted + torch.zeros_like(accepted).scatter_(1, row, slots.numbers[-1])
        return accepted + 1

    def redraft(self, slots: RowSlots) -> torch.Tensor:
        row, offset, drafted, addresses, *_ = slots.numbers
        keep, drafted, gained = slots.keep, drafted > 0, slots.gained.gather(1, row)
        draft_law, new_law = slots.state.laws.read(addresses), slots.target
        if self.config.release:
            leads, proposal = slots.numbers[-1], slots.drafted
            front = gained - leads
            # The paper's code reads a fall by less than half as agreement, and leaves such a draft its old law.
            stays = drafted & (offset > front) & (2 * proposal.probability > proposal.draft_probability)
            new_law = torch.where(stays[..., None], draft_law, new_law)
            keep = (keep & (offset < front)) | stays
            drafted = drafted & (offset < front + leads)  # rows that follow replace a rejected draft from p
        elif not self.config.coupled:
            keep = keep & (offset < gained - 1)
            drafted = drafted & (offset < gained)  # those after the front are sampled anew

        # Most slots are sampled anew: to pick them out would cost more than it saves.
        draft_law = draft_law.masked_fill_(~drafted[..., None], 0.0)
        law = slots.state.acceptance.residual(slots.target, draft_law, slots.drafts)
        tokens = torch.where(keep, slots.drafts, race(law, slots.exponential()))
        slots.state.laws.write(addresses, new_law)
        return tokens

    def draft(
        self, positions: torch.Tensor, numbers: tuple[torch.Tensor, ...], state: RowDecodingState, noise: PositionNoise
    ) -> None:
        vocabulary_size, (_, _, _, addresses, _) = state.layout.vocabulary_size, numbers
        exponential = noise.exponential(positions, Purpose.INITIALISE, vocabulary_size, state.passes)
        known = positions - 1  # the row above is final here, so no source is out of reach
        tokens, laws = INITIALISERS[self.config.initialise](FreshSlots(positions, state, exponential, known))
        state.laws.write(addresses, one_hot(tokens, vocabulary_size) if laws is None else laws)
        state.canvas.scatter_(1, positions, tokens)
