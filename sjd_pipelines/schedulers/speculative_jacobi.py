"""Speculative Jacobi Decoding: drafts of the previous pass, verified as speculative samples."""

import torch
from diffusers.configuration_utils import register_to_config

from ..decoding.noise import Purpose
from ..decoding.sampling import race
from .adaptive_window import check_window_or_auto
from .base import check_choice
from .drafting import INITIALISERS
from .raster_window import RasterWindowScheduler, Slots, speculative_commit
from .verification import speculative_accept

COUPLINGS = ("maximal", "gumbel")


class SJDScheduler(RasterWindowScheduler):
    """SJD (Teng et al. 2024, arXiv 2410.01699): speculative acceptance, residual resampling, fresh redrafts.

    Args:
        window: drafts verified per pass, at least 1, or "auto".
        initialise: how a slot that enters the window is guessed. The paper's choices are `random`, `repeat-left`,
            `repeat-above`, `sample-left` and `sample-above`, which hold the guess to be certain; `uniform`,
            `law-left` and `law-above` store the law the guess was really drawn from.
    """

    label = "lossless"
    paper = "Teng et al. 2024, arXiv 2410.01699"

    @register_to_config
    def __init__(self, window: int | str = 16, initialise: str = "law-above"):
        check_window_or_auto(window)
        check_choice("initialise", initialise, INITIALISERS)

    def accept(self, slots: Slots) -> torch.Tensor:
        uniforms = slots.noise.uniform(slots.positions[:, :-1], Purpose.ACCEPT, slots.state.passes)
        return speculative_accept(slots.target[:, :-1], slots.draft_law, slots.drafts, uniforms)

    def commit(self, slots: Slots, accepted: torch.Tensor) -> torch.Tensor:
        return speculative_commit(slots, accepted)

    def redraft(self, slots: Slots, keep: torch.Tensor) -> torch.Tensor:
        # Draw 0 is the noise that stays with the position; passes count from 1 here.
        noise = slots.noise.exponential(
            slots.positions, Purpose.SAMPLE, slots.target.shape[-1], slots.state.passes + 1
        )
        return race(slots.target, noise)


class CoupledSJDScheduler(SJDScheduler):
    """SJD whose redrafts are coupled with the old drafts, so that they seldom change without need.

    Speculative coupled decoding (So et al. 2025, arXiv 2510.24211). `maximal`: keep a draft where its own acceptance
    test passes, else take the residual; the stored law becomes the new target either way. `gumbel`: redraft with the
    noise fixed at the position.

    Args:
        window: drafts verified per pass, at least 1, or "auto".
        initialise: as in `SJDScheduler`.
        coupling: `maximal` or `gumbel`.
    """

    paper = "So et al. 2025, arXiv 2510.24211"

    @register_to_config
    def __init__(self, window: int | str = 16, initialise: str = "law-above", coupling: str = "maximal"):
        check_window_or_auto(window)
        check_choice("initialise", initialise, INITIALISERS)
        check_choice("coupling", coupling, COUPLINGS)

    @property
    def shares_noise(self) -> bool:
        return self.config.coupling == "gumbel"

    def commit(self, slots: Slots, accepted: torch.Tensor) -> torch.Tensor:
        if self.config.coupling == "gumbel":
            return super().commit(slots, accepted)
        return slots.at(slots.residual_choice, accepted)

    def redraft(self, slots: Slots, keep: torch.Tensor) -> torch.Tensor:
        if self.config.coupling == "gumbel":
            return slots.seeded_choice
        kept = torch.where(keep, slots.drafts, slots.residual_choice[:, :-1])
        return torch.cat([kept, slots.residual_choice[:, -1:]], 1)
