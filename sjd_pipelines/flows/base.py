"""The contract between a flow and its solver: scales and shifts in, tokens out, no network and no cache."""

from abc import abstractmethod
from typing import ClassVar

import torch
from diffusers import ConfigMixin, SchedulerMixin

from .state import BlockState, FlowOverflowError

EXACT_TOLERANCE = 1e-6  # changes up to here are rounding
STARTS = ("latents", "zeros")  # first iterates: x = z, or 0 after the first token


class FlowSolver(SchedulerMixin, ConfigMixin):
    """Base of every solver. A block is `begin`, then a pass over `state.inputs` and `step` until `state.done`."""

    order = 1
    name: ClassVar[str]
    paper: ClassVar[str]

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        # diffusers looks compatible classes up in its own module only; ours share every setting they have in common.
        return [FlowSolver, *_descendants(FlowSolver)]

    @property
    @abstractmethod
    def label(self) -> str:
        """`exact`: as near to sequential sampling as its own rounding; else `approximate`."""

    @property
    def error(self) -> float | None:
        """Difference from sequential sampling, where it has been measured."""
        return None

    def check(self, num_blocks: int, num_tokens: int) -> None:
        """Raise `ValueError` if these settings do not fit a flow of K blocks and T tokens."""

    def solver_of(self, block: int, num_blocks: int) -> "FlowSolver":
        """The solver that takes a block, for one that shares them out."""
        return self

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
        scale=latents.square().mean((1, 2)).sqrt()[:, None].clamp(min=torch.finfo(latents.dtype).tiny),
        front=torch.zeros_like(rows),
        fronts=[0] * batch_size,
        solved=[1] * batch_size,
        row_passes=[0] * batch_size,
        residual=[None] * batch_size,
    )


def replace_non_finite(proposal: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Where an iterate has overflowed, the one before it: keys and values of infinite tokens would poison the rest."""
    return torch.where(proposal.isfinite(), proposal, before)


def raise_overflow() -> None:
    """The one message for a flow that cannot be inverted."""
    raise FlowOverflowError(
        "The flow overflows: tokens grow beyond all numbers on their way from noise to picture. Weights that were "
        "never trained do so, and so does too strong guidance: check the weights, or lower guidance_scale."
    )


def check_tolerance(tolerance: float) -> None:
    """Raise `ValueError` unless it is a finite number of at least 0."""
    if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance must be a finite number of at least 0, got {tolerance!r}.")


def check_limit(name: str, value: int | None) -> None:
    """Raise `ValueError` unless it is None or an integer of at least 1."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name} must be None or an integer of at least 1, got {value!r}.")


def check_start(start: str) -> None:
    """Raise `ValueError` unless it is one of `STARTS`."""
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}; got {start!r}.")


def _descendants(cls: type) -> list[type]:
    children = cls.__subclasses__()
    return children + [descendant for child in children for descendant in _descendants(child)]
