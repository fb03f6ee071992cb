"""One token per pass: what every other solver is measured against."""

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import Card
from .base import FlowSolver, new_state, raise_overflow
from .state import BlockState


class SequentialFlowSolver(FlowSolver):
    """Sequential sampling with a preallocated cache, T - 1 passes per block."""

    label = claim = "exact"
    paper = "Zhai et al. 2024, arXiv 2412.06329"
    card = Card(
        "Sequential",
        "One patch per forward pass, the plain way. Many passes; what all others are measured against.",
        "Take it to check another solver, or for large batches on a CPU.",
    )

    @register_to_config
    def __init__(self):
        pass

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        return new_state(latents, "latents", stop=1)

    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        state.sample[:, state.start + 1 : state.stop + 1] = state.proposal(log_scale, shift)
        state.start, state.stop = state.start + 1, state.stop + 1
        state.solved = [state.stop] * len(state.solved)
        if state.stop == state.num_tokens:
            if not state.sample.isfinite().all():  # once per block: a look per token would cost more than the token
                raise_overflow()
            state.finish([True] * len(state.rows))
        return state
