"""Logits to probabilities: guidance, mask, temperature, top-k, top-p, softmax, in that order, once."""

import torch

from .layout import FREE


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance on raw logits, `u + s (c - u)` (Ho & Salimans 2022, eq. 6), any shape."""
    return unconditional + (conditional - unconditional) * scale


def force(logits: torch.Tensor, forced: torch.Tensor, codebook_size: int) -> torch.Tensor:
    """Leave the forced token alone at forced slots, and the codebook ids alone elsewhere.

    Args:
        logits: `[B, Q, V]`, structural ids after the codebook ids.
        forced: `[B, Q]` int64, an id or `FREE`.
        codebook_size: ids from here on are structural.
    """
    ids = torch.arange(logits.shape[-1], device=logits.device)
    allowed = torch.where(forced[..., None] == FREE, ids < codebook_size, ids == forced[..., None])  # [B, Q, V]
    return logits.masked_fill(~allowed, -torch.inf)


def probabilities(
    logits: torch.Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> torch.Tensor:
    """The law that is sampled, and the only one: drafts and targets are both measured by it.

    Args:
        logits: `[..., V]`, guided and masked.
        temperature: > 0 divides the logits; 0 is greedy (all mass on the largest logit).
        top_k: keep the k largest logits (ties with the k-th stay); None or 0 keeps all.
        top_p: keep the smallest set of largest probabilities whose mass reaches top_p (ties with the last stay);
            None or 1 keeps all.

    Returns:
        `[..., V]` float32, rows sum to one.
    """
    logits = logits.float()
    if temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    if temperature != 1:
        logits = logits / temperature
    if top_k and top_k < logits.shape[-1]:
        threshold = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    law = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        law = law.masked_fill(law < _nucleus_threshold(law, top_p), 0.0)
        law = law / law.sum(-1, keepdim=True)
    return law


def _nucleus_threshold(law: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest probability that top-p keeps: `[..., V]` -> `[..., 1]`."""
    if law.device.type != "cpu":
        return _last_kept(law.sort(-1, descending=True).values, top_p)
    # A CPU sorts slowly and can look at its numbers at no cost: a few tokens nearly always hold the mass. Up to V / 64
    # of them are found without sorting the rest.
    size = law.shape[-1]
    ordered = law.topk(min(size, max(32, size // 64)), -1).values
    threshold = _last_kept(ordered, top_p)
    short = ordered.sum(-1) < top_p
    if short.any():
        threshold[short] = _last_kept(law[short].sort(-1, descending=True).values, top_p)
    return threshold


def _last_kept(ordered: torch.Tensor, top_p: float) -> torch.Tensor:
    """The same of probabilities in falling order."""
    before = ordered.cumsum(-1) - ordered  # mass of what stands before each token in the ranking
    return ordered.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)


def race(law: torch.Tensor, exponential: torch.Tensor) -> torch.Tensor:
    """Draw from `law` by the exponential race `argmax(law / exponential)`: `[..., V]` -> `[...]` int64.

    With fixed noise this is the Gumbel-max trick: equal noise and equal law give the equal token.
    `law` need not be normalised.
    """
    return (law / exponential).argmax(-1)
