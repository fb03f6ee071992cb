"""Muon for hidden matrices, AdamW for the rest, one learning-rate factor for both, and averaged weights."""

from __future__ import annotations

import torch
from torch import nn


class Optimizer:
    """Muon (Jordan et al. 2024) on hidden matrices and AdamW on embeddings, heads, norms and biases.

    A convolution kernel `[out, in, 3, 3]` counts as the matrix `[out, 9 in]`.

    Args:
        parameters: name to parameter.
        muon_rate: peak learning rate of Muon, scaled to AdamW's update size (Moonshot's `match_rms_adamw`); 0 leaves
            all to AdamW.
        adam_rate: peak learning rate of AdamW.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], muon_rate: float, adam_rate: float) -> None:
        hidden = [p for name, p in parameters.items() if muon_rate and is_hidden_matrix(name, p)]
        rest = [p for name, p in parameters.items() if not (muon_rate and is_hidden_matrix(name, p))]
        # Muon takes matrices only: kernels get a flat twin that shares their memory.
        self.twins = [(p, nn.Parameter(p.detach().flatten(1))) for p in hidden]
        adam = torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.97), weight_decay=0.0, fused=True)
        self.parts = {"adam": (adam, adam_rate)}
        if hidden:
            muon = torch.optim.Muon(
                [twin for _, twin in self.twins],
                lr=muon_rate,
                momentum=0.95,
                weight_decay=0.02,
                adjust_lr_fn="match_rms_adamw",
            )
            self.parts = {"muon": (muon, muon_rate)} | self.parts

    def step(self, factor: float) -> None:
        """Take one step at `factor` times the peak rates."""
        for parameter, twin in self.twins:
            twin.grad = parameter.grad.flatten(1)
        for optimizer, peak in self.parts.values():
            for group in optimizer.param_groups:
                group["lr"] = factor * peak
            optimizer.step()

    def state_dict(self) -> dict:
        return {name: optimizer.state_dict() for name, (optimizer, _) in self.parts.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, (optimizer, _) in self.parts.items():
            optimizer.load_state_dict(state[name])


_OUTPUTS_AND_TABLES = ("embed", "vision_head", "generation_aligner.fc1", "conv_out", "embedding", "scene_heads")


def is_hidden_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether a parameter maps features to features: not an embedding, an output head, a norm or a bias."""
    return parameter.ndim in (2, 4) and not any(part in name for part in _OUTPUTS_AND_TABLES)


def rate_factor(step: int, warmup: int, seconds_left: float, decay_seconds: float) -> float:
    """Warmup, plateau, linear decay to zero over the last `decay_seconds` of the run."""
    decay = min(1.0, max(0.0, seconds_left / decay_seconds)) if decay_seconds > 0 else 1.0
    return min(1.0, (step + 1) / warmup) * decay


@torch.no_grad()
def update_average(average: list[torch.Tensor], parameters: list[nn.Parameter], step: int, decay: float) -> None:
    """Exponential moving average of the weights; the decay grows from zero so that the start is forgotten."""
    weight = 1 - min(decay, (step + 1) / (step + 10))
    torch._foreach_lerp_(average, [p.detach() for p in parameters], weight)
