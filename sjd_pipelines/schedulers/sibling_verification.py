"""Several guesses for one position: drawn without replacement, verified one after the other, exactly.

Recursive rejection (Jeon et al. 2024, arXiv 2402.14160; Yang et al. 2024, arXiv 2401.06706): each sibling is tested
against what the siblings before it left of the target. To test siblings independently and take the longest path that
holds, as some releases do, is biased.
"""

from collections.abc import Callable

import torch

# (p [..., V], q [..., V], sibling [..., 1]) -> the mass it is accepted with [..., 1], the law taken away [..., V].
Relaxation = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def draw_siblings(law: torch.Tensor, exponential: torch.Tensor, count: int) -> torch.Tensor:
    """Draw `count` different tokens in order, without replacement.

    The order of arrival in an exponential race is exactly that (Gumbel top-k, Kool et al. 2019, arXiv 1903.06059).
    Behind the last token the law allows come tokens of probability zero, which `verify_siblings` passes over.

    Args:
        law: `[..., V]` float32, need not be normalised.
        exponential: `[..., V]` float32 standard exponential noise.
        count: K <= V.

    Returns:
        `[..., K]` int64.
    """
    return (law / exponential).topk(count, -1).indices


def verify_siblings(
    target: torch.Tensor,
    draft_law: torch.Tensor,
    siblings: torch.Tensor,
    uniforms: torch.Tensor,
    relax: Relaxation | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Accept the first sibling that passes; the accepted sibling, else a draw from the residual, has the target law.

    Sibling k is accepted with probability min(1, p/q). If it is not, p becomes the norm of (p - q)_+ and q is
    normalised without the sibling. A sibling that q cannot produce is passed over: a law of zeros has no siblings.

    Args:
        target: `[..., V]` float32, p, rows sum to one.
        draft_law: `[..., V]` float32, q, rows sum to one, or to zero where nothing is drafted.
        siblings: `[..., K]` int64, drawn from `draft_law` in this order without replacement.
        uniforms: `[..., K]` float32 in [0, 1), independent of each other and of the draws.
        relax: what a sibling is accepted with instead of p, and what a rejection takes away instead of q.

    Returns:
        `[...]` int64, which sibling is accepted, K where none is; and `[..., V]` float32, the law of the token to
        draw where none is (rows sum to one; of no use where one is accepted).
    """
    count = siblings.shape[-1]
    failed = torch.ones_like(siblings[..., :1], dtype=torch.bool)  # [..., 1]
    accepted = torch.zeros_like(siblings[..., :1])
    for index, (token, uniform) in enumerate(zip(siblings.split(1, -1), uniforms.split(1, -1))):
        p, q = target.gather(-1, token), draft_law.gather(-1, token)  # [..., 1]
        drawn, taken = q > 0, draft_law
        if relax is not None:
            p, taken = relax(target, draft_law, token)
        failed = failed > (drawn & (uniform * q < p))  # bools: failed before, and now too
        accepted = accepted + failed
        if failed.device.type == "cpu" and not failed.any():
            break  # a look that costs nothing on a CPU
        left = (target - taken).clamp_(min=0)
        mass = left.sum(-1, keepdim=True)
        # No mass left: p and q are equal up to rounding, and what was rejected could not be.
        target = torch.where(drawn & (mass > 0), left / mass, target)
        if index + 1 < count:
            draft_law = draft_law.scatter(-1, token, 0.0)
            draft_law = draft_law / draft_law.sum(-1, keepdim=True).clamp(min=torch.finfo(draft_law.dtype).tiny)
    return accepted[..., 0], target
