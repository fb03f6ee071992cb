"""Jacobi iterations over whole blocks, or segment by segment: Gauss-Seidel-Jacobi as it was published."""

import torch
from diffusers.configuration_utils import register_to_config

from .base import (
    EXACT_TOLERANCE,
    FlowSolver,
    check_limit,
    check_start,
    check_tolerance,
    new_state,
    raise_overflow,
    replace_non_finite,
)
from .state import BlockState
from .strategy import GaussSeidelStrategy


class JacobiFlowSolver(FlowSolver):
    """All tokens of a block in every pass, until none of a picture's changes: at most T - 1 passes.

    Args:
        tolerance: largest change of a token (root mean square), in units of that of the picture's latents, at which a
            picture is done.
        max_iterations: passes per block, at most; None is T - 1, which are enough for any flow.
        start: first iterate, `latents` or `zeros`.
    """

    name = "jacobi"
    paper = "Song et al. 2021, arXiv 2002.03629; Liu & Qin 2025, arXiv 2505.12849"

    @register_to_config
    def __init__(self, tolerance: float = EXACT_TOLERANCE, max_iterations: int | None = None, start: str = "latents"):
        check_tolerance(tolerance)
        check_limit("max_iterations", max_iterations)
        check_start(start)

    @property
    def label(self) -> str:
        exact = self.config.tolerance <= EXACT_TOLERANCE and self.config.max_iterations is None
        return "exact" if exact else "approximate"

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        return new_state(latents, self.config.start, stop=latents.shape[1] - 1)

    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        changes = sweep(log_scale, shift, state)
        limit = min(self.config.max_iterations or state.stop, state.stop)  # T - 1 inputs
        state.finish([state.iteration == limit or change <= self.config.tolerance for change in changes])
        return state


class GaussSeidelJacobiFlowSolver(FlowSolver):
    """Gauss-Seidel over segments of the dominant blocks, Jacobi inside each, few Jacobi passes for the other blocks.

    Semantics of the published sampler but for its clamp of the iterates, which keeps it from the right result: the
    whole batch goes through the same passes; a segment left before it has converged is read by those after it
    through keys and values one pass old.

    Args:
        strategy: as published, `dominant blocks-segments-passes per segment-passes of the others`, for instance
            `6-8-32-10` or `0/7-256/8-1/13-6`; blocks are counted from the picture.
        starts: first iterate of each block in the order of sampling, 0 for the latents and 1 for zeros, as published;
            None is 0 for all.
        tolerance: a segment is left early where no token changes more; measured as for `JacobiFlowSolver`.
    """

    name = "gauss-seidel-jacobi"
    paper = "Liu & Qin 2025, arXiv 2505.12849"

    @register_to_config
    def __init__(self, strategy: str = "6-8-32-10", starts: list[int] | None = None, tolerance: float = 1e-6):
        check_tolerance(tolerance)
        self.strategy = GaussSeidelStrategy.parse(strategy)
        if starts is not None and any(start not in (0, 1) for start in starts):
            raise ValueError(f"starts must be a list of 0 (latents) and 1 (zeros), got {starts!r}.")

    @property
    def label(self) -> str:
        return "approximate"

    def check(self, num_blocks: int, num_tokens: int) -> None:
        self.strategy.check(num_blocks, num_tokens)
        starts = self.config.starts
        if starts is not None and len(starts) != num_blocks:
            raise ValueError(f"starts has {len(starts)} entries; this flow has {num_blocks} blocks.")

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        segments, limit = self.strategy.of_block(block)
        starts = self.config.starts
        zeros = starts is not None and starts[num_blocks - 1 - block]
        length = latents.shape[1] // segments
        state = new_state(latents, "zeros" if zeros else "latents", stop=min(length, latents.shape[1] - 1))
        state.length, state.limit = length, limit
        return state

    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        changes = sweep(log_scale, shift, state)
        limit = min(state.limit, state.stop - state.start)
        if state.iteration < limit and max(changes) > self.config.tolerance:
            return state
        if state.stop == state.num_tokens - 1:
            state.finish([True] * len(changes))
            return state
        state.start, state.iteration = state.stop, 0
        state.stop = min(state.start + state.length, state.num_tokens - 1)
        state.solved = [state.start + 1] * len(state.solved)
        return state


def sweep(log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> list[float]:
    """One Jacobi pass over the window; the largest change of each row in units of its scale.

    After pass k of a window whose inputs in front are right, its first k tokens are right (Song et al. 2021, prop. 1).
    """
    proposal = state.proposal(log_scale, shift)
    window = state.sample[:, state.start + 1 : state.stop + 1]
    state.iteration += 1
    changes = state.change(proposal, window).amax(1).tolist()  # the one look of a pass
    if not all(change < float("inf") for change in changes):
        if not proposal[:, : state.iteration].isfinite().all():
            raise_overflow()
        proposal = replace_non_finite(proposal, window)
    state.sample[:, state.start + 1 : state.stop + 1] = proposal
    for row, change in zip(state.numbers, changes):
        state.residual[row] = change
        state.solved[row] = max(state.solved[row], state.start + 1 + state.iteration)
    return changes
