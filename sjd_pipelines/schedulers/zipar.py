"""ZipAR: one token per open row and pass, a row trailing the one above by some columns."""

import torch
from diffusers.configuration_utils import register_to_config

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.sampling import race
from .base import check_count
from .row_parallel import RowDecodingState, RowParallelScheduler, RowSlots
from .verification import at_drafts, residual, speculative_accept


class ZipARScheduler(RowParallelScheduler):
    """ZipAR (He et al. 2024, arXiv 2412.04062): a token is drawn once the row above is `delay` columns ahead.

    An image of R rows and C columns takes C + (R - 1) * delay passes. A delay of C columns is sequential decoding.

    Args:
        delay: columns of the row above that must be final before a row opens, the paper's window size; None is a
            quarter of the row.
        adaptive: take `delay` as the least. The first token of a row then is a draft that must pass verification one
            pass, and one column of the row above, later; until it does, the row does not start.
    """

    label = "approximate"
    paper = "He et al. 2024, arXiv 2412.04062"

    @register_to_config
    def __init__(self, delay: int | None = None, adaptive: bool = False):
        if delay is not None:
            check_count("delay", delay)

    @property
    def window(self) -> int:
        return 0

    def drafts(self, layout: ImageTokenLayout) -> int:
        return 0

    def law_slots(self, layout: ImageTokenLayout) -> int:
        # One law per row, of its first token, and one place for the slots that store none.
        return layout.rows + 1 if self.config.adaptive else 0

    def decide(
        self, target: torch.Tensor, slots: RowSlots, state: RowDecodingState, noise: PositionNoise
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Rows that have started keep their distance, because all of them gain one token per pass.
        gained = ((state.slots > 0) & ~state.complete).long()
        tokens = race(target, noise.exponential(slots.positions, Purpose.SAMPLE, target.shape[-1]))
        if not self.config.adaptive:
            return tokens, gained
        opening = slots.open & (slots.column == 0) & (slots.row > 0)
        proposed = opening & (slots.of_row(state.drafted) > 0)
        laws = slots.row.masked_fill(~opening, state.layout.rows)
        drafts = state.canvas.gather(1, slots.positions)
        uniforms = noise.uniform(slots.positions, Purpose.ACCEPT, state.passes)
        keep = proposed & speculative_accept(at_drafts(target, drafts), state.laws.at(laws, drafts), uniforms)
        exponential = noise.exponential(slots.positions, Purpose.RESIDUAL, target.shape[-1], state.passes)
        redrawn = torch.where(keep, drafts, race(residual(target, state.laws.read(laws)), exponential))
        state.laws.write(laws, target)
        # Under a complete row there is nothing left to wait for.
        waiting = opening & ~keep & (slots.of_row(state.above) < state.layout.columns)
        gained = gained - slots.first_of_row(waiting, state.layout.rows).long()
        return torch.where(proposed, redrawn, tokens), gained
