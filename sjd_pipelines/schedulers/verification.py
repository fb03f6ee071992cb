"""What all acceptance has to do with: the drafts of a row, which of them hold, and how likely they are."""

import torch

from ..decoding.look import look_is_free


def leading(keep: torch.Tensor) -> torch.Tensor:
    """Number of leading True per row: `[B, W]` bool -> `[B]` int64."""
    return keep.long().cumprod(-1).sum(-1)


def rejected_slots(keep: torch.Tensor) -> torch.Tensor:
    """The slots whose drafts are rejected, in order: `[B, W]` bool -> `[B, R]` int64.

    Rows with fewer than R are filled up with slots that are kept. Where counting would wait for the device, R is W.
    """
    count = keep.shape[1]
    if look_is_free(keep):
        count -= int(keep.sum(-1).min())
    return keep.sort(dim=-1, stable=True).indices[:, :count]


def at_drafts(law: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
    """Probability of each draft: `[..., Q, V]`, `[..., W <= Q]` -> `[..., W]`."""
    return law.gather(-1, drafts[..., None])[..., 0]
