"""Cool-SD's rule: early drafts pass more readily than late ones."""

from dataclasses import dataclass

import torch

from .speculative import Drafted, Speculative


@dataclass
class Annealed(Speculative):
    """Cool-SD (Li et al. 2026, arXiv 2601.09212): p is multiplied by `annealed_factors`.

    Args:
        relaxation: mean of the factors.
        decay: how fast they fall per draft.
    """

    relaxation: float
    decay: float

    def masses(self, drafted: Drafted) -> tuple[torch.Tensor, torch.Tensor]:
        factors = annealed_factors(drafted.span, self.relaxation, self.decay, drafted.target.device)[drafted.depth]
        return drafted.probability * factors, drafted.draft_probability


def annealed_factors(window: int, relaxation: float, decay: float, device: torch.device | str) -> torch.Tensor:
    """Factors of p that fall over the window as exp(-decay * slot) with mean `relaxation`, never below 1: `[W]`.

    Cool-SD (Li et al. 2026, arXiv 2601.09212): relaxing early drafts more and late ones less costs less total
    variation than relaxing all alike. Below 1 a factor would reject more than plain verification, to no one's good.
    """
    weights = (-decay * torch.arange(window, device=device)).exp()
    return (relaxation * window / weights.sum() * weights).clamp(min=1)
