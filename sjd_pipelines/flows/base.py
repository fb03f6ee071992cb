"""The contract between a flow and its solver: scales and shifts in, tokens out, no network and no cache."""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from ..configured import Configured
from ..declaration import Card, Setting
from .registry import FLOW_SOLVERS
from .state import BlockState, FlowOverflowError, root_mean_square

EXACT_TOLERANCE = 1e-6  # changes up to here are rounding
LARGEST = 1e15  # tokens beyond are none: what a network makes of their squares is no number in float32
STARTS = ("latents", "zeros")  # first iterates: x = z, or 0 after the first token

# Settings that several solvers share.
Tolerance = Annotated[
    float,
    Setting(
        "How little a patch must still move to count as solved, as a share of the noise's strength. Smaller is closer "
        "to drawing one patch at a time, and takes more passes; 0.000001 is as exact as numbers are, 0.01 a "
        "difference that one has to look for.",
        least=0,
        most=1,
        step=1e-6,
    ),
]
Start = Annotated[
    str,
    Setting(
        "What patches begin as: the noise itself, or zeros. Changes the number of passes a little, not the picture.",
        choices=STARTS,
    ),
]


class FlowSolver(Configured):
    """Base of every solver. A block is `begin`, then a pass over `state.inputs` and `step` until `state.done`.

    A subclass declares its settings in its constructor, by keyword alone, each with a `Setting`, and its words in a
    `Card`; a line in `registry.py` makes it known to everything else.

    Attributes:
        paper: where it comes from.
        card: what it is called and says of itself.
        claim: its label in words, for tables.
        follows: whether its blocks may begin on latents that still change; see `BlockState.open`.
    """

    registry = FLOW_SOLVERS
    paper: ClassVar[str]
    card: ClassVar[Card]
    claim: ClassVar[str]
    follows: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """As registered."""
        return FLOW_SOLVERS.name_of(type(self))

    @property
    @abstractmethod
    def label(self) -> str:
        """`exact`: as near to sequential sampling as its own rounding; else `approximate`."""

    def error_at(self, conditions: dict[str, Any]) -> float | None:
        """Difference from sequential sampling, where it was measured of this flow, see `FlowTarget.conditions`."""
        return None

    def check(self, num_blocks: int, num_tokens: int) -> None:
        """Raise `ValueError` if these settings do not fit a flow of K blocks and T tokens."""

    def solver_of(self, block: int, num_blocks: int) -> "FlowSolver":
        """The solver that takes a block, for one that shares them out."""
        return self

    def most_at_once(self, num_blocks: int) -> int:
        """How many of K blocks it works on side by side, at most; each has keys and values of its own."""
        return 1

    def goes_on(self, state: BlockState) -> bool:
        """Whether the block after this one may begin beside it, on what there is of it, if its solver follows."""
        return False

    @abstractmethod
    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        """Pose the problem of one block.

        Args:
            block: index, 0 next to the picture, which is solved last.
            num_blocks: K.
            latents: `[B, T, D]`, in the order of the block.
        """

    @abstractmethod
    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        """Move the iterate on.

        Args:
            log_scale: `[A, Q, D]` at tokens `state.start + 1` to `state.stop`, for the inputs of the state.
            shift: likewise.
            state: updated in place.

        Returns:
            `state`.

        Raises:
            FlowOverflowError: a token whose inputs are all right is not finite.
        """


def new_state(latents: torch.Tensor, start: str, stop: int) -> BlockState:
    """All pictures at their first iterate, the first window being inputs 0 to `stop - 1`."""
    batch_size, _, _ = latents.shape
    sample = latents.clone()
    if start == "zeros":
        sample[:, 1:] = 0
    rows = torch.arange(batch_size, device=latents.device)
    return BlockState(
        latents=latents,
        sample=sample,
        rows=rows,
        numbers=list(range(batch_size)),
        result=torch.empty_like(latents),
        start=0,
        stop=stop,
        scale=root_mean_square(latents),
        resting=np.zeros(latents.shape[:2], dtype=np.int32),
        fronts=[0] * batch_size,
        solved=[1] * batch_size,
        row_passes=[0] * batch_size,
        residual=[None] * batch_size,
    )


def is_tame(tokens: torch.Tensor) -> torch.Tensor:
    """Which numbers a network can read without being poisoned: finite, and so are their squares."""
    return tokens.abs() < LARGEST  # False for what is no number


def replace_wild(proposal: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Where an iterate has overflowed, the one before it: keys and values of infinite tokens would poison the rest."""
    return torch.where(is_tame(proposal), proposal, before)


def raise_overflow() -> None:
    """The one message for a flow that cannot be inverted."""
    raise FlowOverflowError(
        "The flow overflows: tokens grow beyond all numbers on their way from noise to picture. Weights that were "
        "never trained do so, and so does too strong guidance: check the weights, or lower guidance_scale."
    )
