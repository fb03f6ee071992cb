"""Cool-SD's rule: early drafts pass more readily than late ones."""

from dataclasses import dataclass

import torch

from .speculative import Drafted, Speculative


@dataclass(frozen=True)
class Annealed(Speculative):
    """Cool-SD (Li et al. 2026, arXiv 2601.09212): p is multiplied by `annealed_factors`.

    Args:
        relaxation: mean of the factors.
        decay: how fast they fall per draft.
        spread: drafts that the mean is over; None: all on a path of the pass that the picture can still use.
    """

    relaxation: float
    decay: float
    spread: int | None = None

    def masses(self, drafted: Drafted) -> tuple[torch.Tensor, torch.Tensor]:
        device, spread = drafted.target.device, self.spread
        if spread is None and drafted.useful is not None:
            spread = drafted.useful()
        factors = annealed_factors(drafted.span, self.relaxation, self.decay, device, spread)
        factors = factors if drafted.depth is ... else factors[..., drafted.depth]
        return drafted.probability * factors, drafted.draft_probability


def annealed_factors(
    count: int,
    relaxation: float,
    decay: float,
    device: torch.device | str,
    spread: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Factors of p that fall from draft to draft as exp(-decay * depth), never below 1: `[count]`, or `[B, count]`.

    Their mean over the first `spread` drafts, or over all, is `relaxation`; what is below 1 then is raised to it.
    Relaxing early drafts more and late ones less costs less total variation than relaxing all alike. Below 1 a factor
    would reject more than plain verification, to no one's good. `spread` `[B, 1]` is of each picture its own.
    """
    spread = count if spread is None else spread  # a tensor is at most `count`
    drafts = torch.arange(max(count, spread) if isinstance(spread, int) else count, device=device)
    weights = (-decay * drafts).exp()
    total = weights.masked_fill(drafts >= spread, 0.0).sum(-1, keepdim=True)
    return (relaxation * spread / total * weights[:count]).clamp(min=1)
