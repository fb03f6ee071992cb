"""Gauss-Seidel-Jacobi as it was published: segment by segment, each a number of Jacobi passes."""

from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import Card, Setting
from .base import EXACT_TOLERANCE, FlowSolver, Tolerance, new_state
from .jacobi import sweep
from .state import BlockState
from .strategy import GaussSeidelStrategy

_NUMBERS = r"\d{1,4}(/\d{1,4})*"
Strategy = Annotated[
    str,
    Setting(
        "Which blocks are cut, into how many segments, passes over each segment, and passes over every other block; "
        "blocks are counted from the picture. More segments and passes are closer to the right picture and slower.",
        form=rf"{_NUMBERS}-{_NUMBERS}-{_NUMBERS}-\d{{1,4}}",
        example="6-8-32-10 or 0/7-256/8-1/13-6",
    ),
]
Starts = Annotated[
    str | None,
    Setting(
        "What each block begins as, the first to be solved first: 0 for the noise, 1 for zeros; empty is 0 for all.",
        form=r"[01](/[01])*",
        example="0/1/0/0",
    ),
]


class GaussSeidelJacobiFlowSolver(FlowSolver):
    """Gauss-Seidel over segments of the dominant blocks, Jacobi inside each, few Jacobi passes for the other blocks.

    Semantics of the published sampler but for its clamp of the iterates, which keeps it from the right result: the
    whole batch goes through the same passes; a segment left before it has converged is read by those after it
    through keys and values one pass old.

    Args:
        strategy: as published, `dominant blocks-segments-passes per segment-passes of the others`, for instance
            `6-8-32-10` or `0/7-256/8-1/13-6`; blocks are counted from the picture.
        starts: first iterate of each block in the order of sampling, 0 for the latents and 1 for zeros, as published,
            for instance `0/1/0/0/0/0/1/0`; None is 0 for all.
        tolerance: a segment is left early where no token changes more; measured as for `JacobiFlowSolver`.
    """

    claim = "approximate"
    paper = "Liu & Qin 2025, arXiv 2505.12849"
    card = Card(
        "Gauss-Seidel-Jacobi",
        "Cuts the difficult blocks into segments, solved one after the other, and gives every block a fixed number of "
        "passes. As published; with too few passes pictures break.",
        "For strategies that were published for a model. Otherwise Frontier, which stops when a picture is done.",
    )

    @register_to_config
    def __init__(
        self, *, strategy: Strategy = "6-8-32-10", starts: Starts = None, tolerance: Tolerance = EXACT_TOLERANCE
    ):
        self.strategy = GaussSeidelStrategy.parse(strategy)
        self.starts = None if starts is None else [int(start) for start in starts.split("/")]

    @property
    def label(self) -> str:
        return "approximate"

    def check(self, num_blocks: int, num_tokens: int) -> None:
        self.strategy.check(num_blocks, num_tokens)
        if self.starts is not None and len(self.starts) != num_blocks:
            raise ValueError(f"starts has {len(self.starts)} entries; this flow has {num_blocks} blocks.")

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        segments, limit = self.strategy.of_block(block)
        zeros = self.starts is not None and self.starts[num_blocks - 1 - block]
        length = latents.shape[1] // segments
        state = new_state(latents, "zeros" if zeros else "latents", stop=min(length, latents.shape[1] - 1))
        state.length, state.limit = length, limit
        return state

    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        converged = sweep(log_scale, shift, state, self.config.tolerance)
        limit = min(state.limit, state.stop - state.start)
        if state.iteration < limit and not all(converged):
            return state
        if state.stop == state.num_tokens - 1:
            state.finish([True] * len(converged))
            return state
        state.start, state.iteration = state.stop, 0
        state.stop = min(state.start + state.length, state.num_tokens - 1)
        state.solved = [state.start + 1] * len(state.solved)
        return state
