"""Jacobi iterations over whole blocks, and the sweep that they and Gauss-Seidel-Jacobi are made of."""

from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import LONGEST, Card, Setting
from .base import EXACT_TOLERANCE, FlowSolver, Start, Tolerance, is_tame, new_state, raise_overflow, replace_wild
from .state import BlockState

MaxIterations = Annotated[
    int | None,
    Setting(
        "Passes over a block, at most. Fewer save time, and what is not solved by then stays wrong; -1 is as many as "
        "it takes.",
        least=1,
        most=LONGEST,
    ),
]


class JacobiFlowSolver(FlowSolver):
    """All tokens of a block in every pass, until none of a picture's changes: at most T - 1 passes.

    Args:
        tolerance: largest change of a token (root mean square), in units of that of the picture's latents, at which a
            picture is done; where rounding is larger, it is done when nothing else is left.
        max_iterations: passes per block, at most; None is T - 1, which are enough for any flow.
        start: first iterate, `latents` or `zeros`.
    """

    claim = f"exact at tolerance {EXACT_TOLERANCE:g}, else approximate"
    paper = "Song et al. 2021, arXiv 2002.03629; Liu & Qin 2025, arXiv 2505.12849"
    card = Card(
        "Jacobi",
        "Computes all patches of a block in every pass, until none changes. Few passes, each over the whole picture.",
        "Frontier does the same with less work; take this one to compare with papers.",
    )

    @register_to_config
    def __init__(
        self,
        *,
        tolerance: Tolerance = EXACT_TOLERANCE,
        max_iterations: MaxIterations = None,
        start: Start = "latents",
    ):
        pass

    @property
    def label(self) -> str:
        exact = self.config.tolerance <= EXACT_TOLERANCE and self.config.max_iterations is None
        return "exact" if exact else "approximate"

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        return new_state(latents, self.config.start, stop=latents.shape[1] - 1)

    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        converged = sweep(log_scale, shift, state, self.config.tolerance)
        limit = min(self.config.max_iterations or state.stop, state.stop)  # T - 1 inputs
        state.finish([state.iteration == limit or done for done in converged])
        return state


def sweep(log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState, tolerance: float) -> list[bool]:
    """One Jacobi pass over the window; whether no token of a row has moved by more than `tolerance`.

    After pass k of a window whose inputs in front are right, its first k tokens are right (Song et al. 2021, prop. 1).
    """
    proposal = state.proposal(log_scale, shift)
    window = state.sample[:, state.start + 1 : state.stop + 1]
    state.iteration += 1
    change = state.change(proposal, window)
    state.observe(change)
    changes, moves = change.max(1).tolist(), state.moves(change, tolerance).any(1).tolist()
    if not all(change < float("inf") for change in changes):
        if not is_tame(proposal[:, : state.iteration]).all():
            raise_overflow()
        proposal = replace_wild(proposal, window)
    state.sample[:, state.start + 1 : state.stop + 1] = proposal
    for row, change in zip(state.numbers, changes):
        state.residual[row] = change
        state.solved[row] = max(state.solved[row], state.start + 1 + state.iteration)
    return [not move for move in moves]
