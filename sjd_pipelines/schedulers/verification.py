"""How a guess is accepted, and what is committed where the first guess fails."""

import torch

from ..decoding.noise import PositionNoise, Purpose
from ..decoding.sampling import race


def leading(keep: torch.Tensor) -> torch.Tensor:
    """Number of leading True per row: `[B, W]` bool -> `[B]` int64."""
    return keep.long().cumprod(-1).sum(-1)


def rejected_slots(keep: torch.Tensor) -> torch.Tensor:
    """The slots whose drafts are rejected, in order: `[B, W]` bool -> `[B, R]` int64.

    Rows with fewer than R are filled up with slots that are kept. A CPU can count at no cost; where counting would
    wait for the device, R is W.
    """
    count = keep.shape[1]
    if keep.device.type == "cpu":
        count -= int(keep.sum(-1).min())
    return keep.sort(dim=-1, stable=True).indices[:, :count]


def exact_match(drafts: torch.Tensor, choices: torch.Tensor) -> torch.Tensor:
    """Accept a draft that equals the token the target chooses: Jacobi decoding (Santilli et al. 2023).

    With `choices = argmax(p / fixed noise)` this reproduces ancestral sampling token for token
    (predictive sampling, Wiggers & Hoogeboom 2020).

    Args:
        drafts: `[B, W]` int64.
        choices: `[B, W]` int64.

    Returns:
        `[B, W]` bool.
    """
    return drafts == choices


def speculative_accept(
    target: torch.Tensor, draft_law: torch.Tensor, drafts: torch.Tensor, uniforms: torch.Tensor
) -> torch.Tensor:
    """Accept each draft with probability min(1, p/q).

    Leviathan et al. 2023, Alg. 1; SJD (Teng et al. 2024, eq. 4) applies it to Jacobi drafts.

    Args:
        target: `[B, W, V]` float32, p after guidance, mask, temperature and truncation.
        draft_law: `[B, W, V]` float32, the law each draft was drawn from.
        drafts: `[B, W]` int64 codebook ids.
        uniforms: `[B, W]` float32 in [0, 1).

    Returns:
        `[B, W]` bool, each slot tested on its own.
    """
    p = target.gather(-1, drafts[..., None])[..., 0]
    q = draft_law.gather(-1, drafts[..., None])[..., 0]
    return uniforms * q < p


def residual(target: torch.Tensor, draft_law: torch.Tensor) -> torch.Tensor:
    """The law of the token after a rejection, (p - q)_+ up to its norm (Leviathan et al. 2023, Alg. 1).

    Where rounding leaves nothing of it, p and q are equal and p itself is returned.

    Args:
        target: `[B, Q, V]` float32.
        draft_law: `[B, D, V]` float32 of the first D <= Q slots; the slots behind them have no draft, and keep p.

    Returns:
        `[B, Q, V]` float32, not normalised.
    """
    drafted = draft_law.shape[1]
    remainder = target.clone()
    remainder[:, :drafted].sub_(draft_law).clamp_(min=0)
    return torch.where(remainder.sum(-1, keepdim=True) > 0, remainder, target)


def residual_sample(
    target: torch.Tensor, draft_law: torch.Tensor, positions: torch.Tensor, noise: PositionNoise, draw: int
) -> torch.Tensor:
    """Draw from the residual: `[B, Q, V]`, `[B, D, V]`, `[B, Q]` -> `[B, Q]` int64.

    The noise has a stream of its own: it must be independent of the draft that was rejected.
    """
    exponential = noise.exponential(positions, Purpose.RESIDUAL, target.shape[-1], draw)
    return race(residual(target, draft_law), exponential)
