"""Classifier-free guidance of a flow: scales and shifts led away from those of a second branch."""

from dataclasses import dataclass

import torch

from ..ranges import shown

GUIDED = ("both", "scale", "shift")


@dataclass(frozen=True)
class FlowGuidance:
    """How strongly, and what, is guided (Zhai et al. 2024, section 2.5).

    The second branch knows no class, and divides its attention logits by a temperature. With the temperature an
    unconditional model can be guided as well.

    Attributes:
        scale: w, in `s + w (s - s')`; 0 leaves the second branch out.
        annealed: let w grow linearly from the first token of a block to the last, as the published samples do.
        what: `both` scales and shifts, or one of them.
        temperature: of the second branch's attention, > 0.
    """

    scale: float = 0.0
    annealed: bool = True
    what: str = "both"
    temperature: float = 1.0

    def __post_init__(self):
        if self.what not in GUIDED:
            raise ValueError(f"guide_what must be one of {', '.join(GUIDED)}; got {shown(self.what)}.")
        if not self.temperature > 0:
            raise ValueError(f"attention_temperature must be a number above 0, got {shown(self.temperature)}.")

    def branches(self, class_conditional: bool) -> int:
        """1 or 2: the second branch is left out where it would say the same, or is not asked for."""
        differs = class_conditional or self.temperature != 1
        return 2 if self.scale and differs else 1

    def weights(self, num_tokens: int, like: torch.Tensor) -> torch.Tensor:
        """`[T - 1, 1]`: w at each input, the one after which input `i` guides token `i + 1`."""
        steps = torch.arange(1, num_tokens, dtype=like.dtype, device=like.device)[:, None]
        return self.scale * steps / (num_tokens - 1) if self.annealed else self.scale * torch.ones_like(steps)

    def mix(
        self, log_scale: torch.Tensor, shift: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Two branches to one.

        Args:
            log_scale: `[2 B, Q, D]`, the class's rows first.
            shift: `[2 B, Q, D]`.
            weights: `[Q, 1]` of these inputs.

        Returns:
            Guided log scale and shift, two `[B, Q, D]`.
        """
        scale, other_scale = log_scale.chunk(2)
        move, other_move = shift.chunk(2)
        if self.what != "shift":
            scale = scale + weights * (scale - other_scale)
        if self.what != "scale":
            move = move + weights * (move - other_move)
        return scale, move
