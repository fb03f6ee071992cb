"""ZipAR: one token per open row and pass, a row trailing the one above by some columns."""

from functools import partial
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn.functional import pad

from ..declaration import LONGEST, Card, Setting
from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import Purpose
from ..decoding.sampling import race
from .declaration import Bound
from .row_parallel import ROW_SHARES, RowParallelScheduler, RowSlot, RowSlots
from .rules.speculative import Drafted, Speculative

Delay = Annotated[
    int | None,
    Setting(
        "How many tokens a row stays behind the one above. Smaller is faster and less faithful; -1 is a quarter of "
        "the row, a whole row is sequential drawing.",
        least=1,
        most=LONGEST,
    ),
]
Adaptive = Annotated[
    bool,
    Setting("Start a row only once its first token has proved stable. A few more passes, fewer broken shapes."),
]


class ZipARScheduler(RowParallelScheduler):
    """ZipAR (He et al. 2024, arXiv 2412.04062): a token is sampled once the row above is `delay` columns ahead.

    An image of R rows and C columns takes C + (R - 1) * delay passes. A delay of C columns is sequential decoding.

    Args:
        delay: columns of the row above that must be final before a row opens, the paper's window size; None is a
            quarter of the row.
        adaptive: take `delay` as the least. The first token of a row then is a draft that must pass verification one
            pass, and one column of the row above, later; until it does, the row does not start.
    """

    label = "approximate"
    paper = "He et al. 2024, arXiv 2412.04062"
    card = Card(
        "ZipAR",
        "Draws several rows at once, each a little behind the one above. Very few passes; a token does not see the "
        "right end of the row above, so large shapes may break.",
        "For drafts and large pictures. If shapes break, raise delay or turn adaptive on.",
    )
    bounds = (Bound("ZipAR", "delay", ROW_SHARES, by_row=True),)
    acceptance = Speculative()

    @register_to_config
    def __init__(self, delay: Delay = None, adaptive: Adaptive = False):
        pass

    @property
    def window(self) -> int:
        return 0

    def drafts(self, layout: ImageTokenLayout) -> int:
        return 0

    def law_slots(self, layout: ImageTokenLayout) -> int:
        # One law per row, of its first token, and one place for the slots that store none.
        return layout.rows + 1 if self.config.adaptive else 0

    def look_up(self, slot: RowSlot, first: int, layout: ImageTokenLayout) -> tuple[int, ...]:
        """Of a row that opens, where its law is kept; whether it has a draft, and whether something to wait for."""
        if not self.config.adaptive:
            return ()
        if slot.open and slot.column == 0 and slot.row.number:
            return slot.row.number, slot.row.drafted > 0, slot.row.above < layout.columns
        return layout.rows, False, False  # stands for no row

    def accept(self, slots: RowSlots) -> torch.Tensor:
        if not self.config.adaptive:
            return torch.zeros_like(slots.positions, dtype=torch.bool)
        opening, proposed, _ = slots.numbers
        drafted = Drafted(slots.target, slots.drafts, partial(slots.state.laws.at, opening), span=1)
        return (proposed > 0) & slots.state.acceptance.accept(drafted, slots.uniforms)

    def gains(self, slots: RowSlots) -> torch.Tensor:
        # Rows that have started keep their distance, because all of them gain one token per pass.
        none = slots.state.layout.rows
        gained = slots.positions.new_ones(slots.state.batch_size, none)
        if not self.config.adaptive:
            return gained
        opening, _, patient = slots.numbers
        waiting = opening.masked_fill((patient == 0) | slots.keep, none)
        return pad(gained, (0, 1)).scatter(1, waiting, 0)[:, :none]

    def redraft(self, slots: RowSlots) -> torch.Tensor:
        target = slots.target
        tokens = race(target, slots.noise.exponential(slots.positions, Purpose.SAMPLE, target.shape[-1]))
        if not self.config.adaptive:
            return tokens
        opening, proposed, _ = slots.numbers
        law = slots.state.acceptance.residual(target, slots.state.laws.read(opening), slots.drafts)
        redrawn = torch.where(slots.keep, slots.drafts, race(law, slots.exponential()))
        slots.state.laws.write(opening, target)
        return torch.where(proposed > 0, redrawn, tokens)
