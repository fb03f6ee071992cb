"""How a guess is accepted, and what is committed where the first guess fails."""

import torch


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


def at_drafts(law: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
    """Probability of each draft: `[B, Q, V]`, `[B, W <= Q]` -> `[B, W]`."""
    return law.gather(-1, drafts[..., None])[..., 0]


def speculative_accept(
    probability: torch.Tensor, draft_probability: torch.Tensor, uniforms: torch.Tensor
) -> torch.Tensor:
    """Accept each draft with probability min(1, p/q), on its own.

    Leviathan et al. 2023, Alg. 1; SJD (Teng et al. 2024, eq. 4) applies it to Jacobi drafts. Relaxed decoders put the
    mass of more tokens than the draft in the place of p, or of both.

    Args:
        probability: `[B, W]` float32, p of each draft, after guidance, mask, temperature and truncation.
        draft_probability: `[B, W]` float32, q of each draft: under the law it was drawn from.
        uniforms: `[B, W]` float32 in [0, 1).

    Returns:
        `[B, W]` bool.
    """
    return uniforms * draft_probability < probability


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
