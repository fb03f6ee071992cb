"""Logits to probabilities: guidance, mask, temperature, top-k, top-p, softmax, in that order, once."""

from dataclasses import dataclass

import numpy as np
import torch

from .layout import FREE
from .look import look_is_free

FIRST_LOOK = 16  # tokens that are looked at before all of them are


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled in one run; the fields as the pipelines' arguments of these names."""

    guidance_scale: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def guided(self) -> bool:
        """Whether there are unconditional rows."""
        return self.guidance_scale > 1

    def law(self, logits: torch.Tensor) -> torch.Tensor:
        """`probabilities` of guided and masked logits, `[..., V]` -> `[..., V]` float32."""
        return probabilities(logits, self.temperature, self.top_k, self.top_p)


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance on raw logits, `u + s (c - u)` (Ho & Salimans 2022, eq. 6), any shape."""
    return (conditional - unconditional).mul_(scale).add_(unconditional)


def guide_rows(logits: torch.Tensor, scale: float) -> torch.Tensor:
    """Logits of all rows, `[R, Q, V]` with the unconditional ones last, to guided ones: `[B, Q, V]`.

    At a scale of 1 or below there are no unconditional rows.
    """
    return guide(*logits.float().chunk(2), scale) if scale > 1 else logits


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
        best = most_likely(logits)[..., None]
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    if temperature != 1:
        logits = logits / temperature
    if top_k and top_k < logits.shape[-1]:
        threshold = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    law = logits.softmax(-1)
    return law if top_p is None or top_p >= 1 else _nucleus(law, top_p)


def _nucleus(law: torch.Tensor, top_p: float) -> torch.Tensor:
    """The law of those tokens that top-p keeps: `[..., V]` -> `[..., V]`."""
    if not look_is_free(law):
        return _at_least(law, _last_kept(law.sort(-1, descending=True).values, top_p))
    # A CPU sorts slowly, and a few tokens nearly always hold the mass.
    ordered, tokens = law.topk(min(FIRST_LOOK, law.shape[-1]), -1)
    ordered = ordered.masked_fill(ordered < _last_kept(ordered, top_p), 0.0)
    kept = torch.zeros_like(law).scatter_(-1, tokens, ordered / ordered.sum(-1, keepdim=True))
    unsettled = ordered[..., -1] > 0  # the next one may be kept too
    if unsettled.any():
        rest = law[unsettled]
        ordered = torch.from_numpy(np.sort(rest.numpy(), -1)).flip(-1)  # several times as fast as torch's
        kept[unsettled] = _at_least(rest, _last_kept(ordered, top_p))
    return kept


def _at_least(law: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """The law of the tokens that are as likely as that: `[..., V]`, `[..., 1]` -> `[..., V]`."""
    law = law.masked_fill(law < least, 0.0)
    return law / law.sum(-1, keepdim=True)


def _last_kept(ordered: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest probability that top-p keeps, of probabilities in falling order: `[..., K]` -> `[..., 1]`."""
    before = ordered.cumsum(-1).sub_(ordered)  # mass of what stands before each token in the ranking
    return ordered.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)


def race(law: torch.Tensor, exponential: torch.Tensor) -> torch.Tensor:
    """Draw from `law` by the exponential race `argmax(law / exponential)`: `[..., V]` -> `[...]` int64.

    With fixed noise this is the Gumbel-max trick: equal noise and equal law give the equal token.
    `law` need not be normalised.
    """
    return most_likely(law / exponential)


def most_likely(law: torch.Tensor) -> torch.Tensor:
    """The first of the largest entries, `[..., V]` -> `[...]` int64."""
    if look_is_free(law):
        return torch.as_tensor(law.numpy().argmax(-1))  # several times as fast as torch's
    return law.argmax(-1)


def inverse_transform(law: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw from `law` with one number: `[..., V]`, `[...]` in [0, 1) -> `[...]` int64.

    Much cheaper than `race`, but nearby laws and equal numbers do not give equal tokens. `law` need not be normalised.
    """
    reached = law.double().cumsum(-1)  # float64, so that no rounding leads past the last token the law allows
    level = uniform.double()[..., None] * reached[..., -1:]
    # Where the law is no law but NaN, there is a token all the same: what is wrong is told when the pass is read.
    return torch.searchsorted(reached, level, right=True)[..., 0].clamp_(max=law.shape[-1] - 1)
