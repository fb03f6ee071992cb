"""Jacobi with a frozen prefix: tokens that have settled leave the passes, their keys and values stay."""

from typing import Annotated

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import LONGEST, Card, Setting
from .base import EXACT_TOLERANCE, FlowSolver, Start, Tolerance, is_tame, new_state, raise_overflow, replace_wild
from .state import SETTLED, BlockState

Window = Annotated[
    int | None,
    Setting(
        "Patches computed per pass, at most. Smaller windows take more passes of less work each; -1 is all there are, "
        "the fewest passes.",
        least=1,
        most=LONGEST,
    ),
]

# Share of the tolerance up to which a moving token may settle before its picture is done: keys and values of settled
# tokens are one pass old, and what they are off by adds up along the tokens.
SETTLING = 0.5


class FrontierFlowSolver(FlowSolver):
    """Each pass recomputes what lies after the settled prefix of the slowest picture, or a window of it.

    A token is settled when it and all tokens before it changed by no more than half the tolerance in one pass, or by
    no more than rounding in several; the one after them was then computed from settled tokens alone, so that every
    pass settles one at least. A picture leaves the batch when none of its tokens changes by more than the tolerance,
    or than rounding.

    Args:
        tolerance: change of a token (root mean square) at which it counts as solved, in units of the root mean square
            of the picture's latents. A change is not an error; how large that is, calibration measures.
        window: inputs of a pass, at most; None is all there are.
        start: first iterate, `latents` or `zeros`.
    """

    claim = f"exact at tolerance {EXACT_TOLERANCE:g}, else approximate"
    paper = "this package"
    follows = True
    card = Card(
        "Frontier",
        "Computes all patches that are not settled yet in every pass: few passes, fewer patches each time. Stops by "
        "itself, each picture on its own.",
        "A good first choice: as exact as drawing one patch at a time, in a tenth of the passes. Raise tolerance for "
        "fewer still.",
    )

    @register_to_config
    def __init__(self, *, tolerance: Tolerance = EXACT_TOLERANCE, window: Window = None, start: Start = "latents"):
        pass

    @property
    def label(self) -> str:
        return "exact" if self.config.tolerance <= EXACT_TOLERANCE else "approximate"

    @property
    def window(self) -> int | None:
        """Inputs of a pass, at most."""
        return self.config.window

    def corrected(self, proposal: torch.Tensor, before: torch.Tensor, state: BlockState) -> torch.Tensor:
        """What to go on from, given the tokens of the window as the pass says they are, and as they were."""
        return proposal

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        last = latents.shape[1] - 1
        return new_state(latents, self.config.start, stop=min(self.window or last, last))

    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        proposal = state.proposal(log_scale, shift)
        window = state.sample[:, state.start + 1 : state.stop + 1]
        if min(state.fronts) != max(state.fronts):  # rows that are ahead keep what they have settled
            tokens = torch.arange(state.start + 1, state.stop + 1, device=window.device)
            fronts = torch.tensor(state.fronts, device=window.device)
            proposal = torch.where((tokens <= fronts[:, None])[..., None], window, proposal)
        change = state.change(proposal, window)  # [A, Q]
        state.observe(change)
        unsettled = state.moves(change, SETTLING * self.config.tolerance, SETTLED)
        moves = state.moves(change, self.config.tolerance).any(1).tolist()
        # The first token that moved was computed from settled ones: it is settled, but not yet its key and value.
        arrived = np.where(unsettled.any(1), unsettled.argmax(1), unsettled.shape[1] - 1).tolist()
        largest = change.max(1).tolist()
        with np.errstate(over="ignore"):  # what has overflowed moves more than any bound
            power = np.square(change).sum(1).max() / (state.num_tokens - 1)
        # What an exact solver goes on from has not moved at all; the error of others is measured.
        allowed = 0.0 if self.label == "exact" else self.config.tolerance
        state.moved = {number for number, value in zip(state.numbers, largest) if not value <= allowed}
        state.moving = float(power) ** 0.5
        if not all(value < float("inf") for value in largest):
            proposal = self._repair(proposal, window, state)
        state.sample[:, state.start + 1 : state.stop + 1] = self.corrected(proposal, window, state)
        fronts = [state.start + 1 + index for index in arrived]
        held = [number in state.open for number in state.numbers]  # nothing is settled on latents that change
        state.fronts = [
            before if hold else max(front, before) for front, before, hold in zip(fronts, state.fronts, held)
        ]
        self._settle([not move and not hold for move, hold in zip(moves, held)], largest, state)
        return state

    def _settle(self, still: list[bool], largest: list[float], state: BlockState) -> None:
        """Let finished rows go, and lay the next window behind the fronts."""
        last = state.num_tokens - 1
        for row, front, value in zip(state.numbers, state.fronts, largest):
            state.residual[row] = value
            state.solved[row] = front + 1
        complete = state.stop == last
        state.finish([front == last or (complete and rests) for front, rests in zip(state.fronts, still)])
        if not state.done:
            state.start = min(state.fronts)
            state.stop = min(state.start + (self.window or last), last)

    def _repair(self, proposal: torch.Tensor, window: torch.Tensor, state: BlockState) -> torch.Tensor:
        """Keep overflowed iterates out of keys and values; raises where the one after a front has overflowed."""
        after = [min(front - state.start, proposal.shape[1] - 1) for front in state.fronts]  # index of token front + 1
        certain = proposal[range(len(after)), after]  # [A, D]
        certain = certain[[number not in state.open for number in state.numbers]]
        if not is_tame(certain).all():
            raise_overflow()
        return replace_wild(proposal, window)
