"""Exact match: a draft holds if it is the token that the target chooses, so that any guess is allowed."""

import torch


def exact_match(drafts: torch.Tensor, choices: torch.Tensor) -> torch.Tensor:
    """Accept a draft that equals the token the target chooses: Jacobi decoding (Santilli et al. 2023).

    With `choices = argmax(p / fixed noise)` this reproduces ancestral sampling token for token
    (predictive sampling, Wiggers & Hoogeboom 2020).

    Args:
        drafts: `[...]` int64.
        choices: `[...]` int64.

    Returns:
        `[...]` bool.
    """
    return drafts == choices


def matching_sibling(siblings: torch.Tensor, choices: torch.Tensor) -> torch.Tensor:
    """Which of several drafts at one place is the choice, K where none is: `[..., K]`, `[...]` -> `[...]` int64."""
    match = exact_match(siblings, choices[..., None])
    return torch.where(match.any(-1), match.long().argmax(-1), match.shape[-1])
