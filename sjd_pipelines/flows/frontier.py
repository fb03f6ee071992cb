"""Jacobi with a frozen prefix: tokens that have settled leave the passes, their keys and values stay."""

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

# Share of the tolerance up to which a moving token may settle before its picture is done: keys and values of settled
# tokens are one pass old, and what they are off by adds up along the tokens.
SETTLED = 0.5


class FrontierFlowSolver(FlowSolver):
    """Each pass recomputes what lies after the settled prefix of the slowest picture, or a window of it.

    A token is settled when it and all tokens before it changed by no more than half the tolerance in one pass; the one
    after them was then computed from settled tokens alone, so that every pass settles one at least. A picture leaves
    the batch when none of its tokens changes by more than the tolerance.

    Args:
        tolerance: change of a token (root mean square) at which it counts as solved, in units of the root mean square
            of the picture's latents. A change is not an error; how large that is, calibration measures.
        window: inputs of a pass, at most; None is all there are.
        start: first iterate, `latents` or `zeros`.
    """

    name = "frontier"
    paper = "this package"

    @register_to_config
    def __init__(self, tolerance: float = EXACT_TOLERANCE, window: int | None = None, start: str = "latents"):
        check_tolerance(tolerance)
        check_limit("window", window)
        check_start(start)

    @property
    def label(self) -> str:
        return "exact" if self.config.tolerance <= EXACT_TOLERANCE else "approximate"

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        last = latents.shape[1] - 1
        return new_state(latents, self.config.start, stop=min(self.config.window or last, last))

    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        proposal = state.proposal(log_scale, shift)
        window = state.sample[:, state.start + 1 : state.stop + 1]
        if min(state.fronts) != max(state.fronts):  # rows that are ahead keep what they have settled
            tokens = torch.arange(state.start + 1, state.stop + 1, device=window.device)
            proposal = torch.where((tokens <= state.front[:, None])[..., None], window, proposal)
        change = state.change(proposal, window)  # [A, Q]
        moved = ~(change <= SETTLED * self.config.tolerance)  # a change that is not a number counts as one
        # The first token that moved was computed from settled ones: it is settled, but not yet its key and value.
        arrived = torch.where(moved.any(1), moved.int().argmax(1), moved.shape[1] - 1)  # [A]
        looked_at = torch.stack([arrived.to(change.dtype), change.amax(1)]).tolist()  # the one look of a pass
        fronts, largest = [state.start + 1 + int(index) for index in looked_at[0]], looked_at[1]
        if not all(value < float("inf") for value in largest):
            proposal = self._repair(proposal, window, state)
        state.sample[:, state.start + 1 : state.stop + 1] = proposal
        self._settle(fronts, largest, state)
        return state

    def _settle(self, fronts: list[int], largest: list[float], state: BlockState) -> None:
        """Move the fronts on, let finished rows go, and lay the next window."""
        last = state.num_tokens - 1
        state.fronts = [max(front, before) for front, before in zip(fronts, state.fronts)]
        for row, front, value in zip(state.numbers, state.fronts, largest):
            state.residual[row] = value
            state.solved[row] = front + 1
        complete = state.stop == last
        state.finish(
            [
                front == last or (complete and value <= self.config.tolerance)
                for front, value in zip(state.fronts, largest)
            ]
        )
        if not state.done:
            state.front = torch.tensor(state.fronts, device=state.rows.device)
            state.start = min(state.fronts)
            state.stop = min(state.start + (self.config.window or last), last)

    def _repair(self, proposal: torch.Tensor, window: torch.Tensor, state: BlockState) -> torch.Tensor:
        """Keep overflowed iterates out of keys and values; raises where the one after a front has overflowed."""
        after = (state.front - state.start).clamp(max=proposal.shape[1] - 1)  # [A] index of token front + 1
        certain = proposal[torch.arange(len(after), device=after.device), after]  # [A, D]
        if not certain.isfinite().all():
            raise_overflow()
        return replace_non_finite(proposal, window)
