"""What a scheduler may ask of a reviser: the laws after tokens that replace those the target has seen."""

from collections.abc import Callable
from typing import Protocol

import torch

from .target import Companion


class Reviser(Companion, Protocol):
    """A network that revises the target's laws on one batch."""

    def at(self, predicts: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function that tells the target's laws at some positions, as they might be had it seen another canvas.

        Args:
            predicts: `[B, C]` int64, what tokens that went through the target in its last pass predicted.

        Returns:
            A function of a canvas, `[B, L]` int64 tokens at their positions, to the laws at `predicts`,
            `[B, C, V]` float32, rows sum to one. Where the tokens around a position have not changed since the last
            pass, the law is the target's own.
        """
