"""What a scheduler may ask of a reviser: the laws behind tokens that replace those the target has seen."""

from typing import Protocol

import torch


class Reviser(Protocol):
    """A network that revises the target's laws on one batch. It looks on at every pass of the target."""

    def laws(self, canvas: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The target's laws, as they might be had it seen `canvas` in its last pass.

        Where the tokens around a position have not changed since, the law is the target's own.

        Args:
            canvas: `[B, L]` int64, tokens at their positions.
            positions: `[B, C]` int64, of tokens that went through the target in its last pass.

        Returns:
            `[B, C, V]` float32, the law of the token behind each position; rows sum to one.
        """
