"""The contract between pipeline and scheduler: tensors in, tensors out, no model and no cache."""

from abc import abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, SchedulerMixin

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise
from ..decoding.state import DecodingState, Query


class DecodingScheduler(SchedulerMixin, ConfigMixin):
    """Base of every scheduler. A run is `start`, then `plan`, forward pass and `step` until the image is complete.

    A scheduler with `needs_codebook` is given the codebook by `prepare_codebook` before `start`. One with
    `needs_drafter` finds a draft model at `state.drafter`, one with `needs_reviser` a reviser at
    `state.reviser`.
    """

    order = 1
    label: ClassVar[str]
    paper: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # What model_index.json will name: the package, because files move.
        package = __name__.partition(".")[0]
        if cls.__module__.startswith(f"{package}."):
            cls.__module__ = package

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        # diffusers looks compatible classes up in its own module only; ours share every setting they have in common.
        return [DecodingScheduler, *_descendants(DecodingScheduler)]

    @property
    def window(self) -> int:
        """Drafts verified per pass, at most; `ParallelJacobiScheduler`: per row."""
        return self.config.window

    @property
    def needs_codebook(self) -> bool:
        """Whether `prepare_codebook` must be called before `start`."""
        return False

    @property
    def needs_drafter(self) -> bool:
        """Whether `state.drafter` must be set before the first `plan`."""
        return False

    @property
    def needs_reviser(self) -> bool:
        """Whether `state.reviser` must be set before the first `plan`."""
        return False

    def prepare_codebook(self, vectors: torch.Tensor) -> None:
        """Take the codebook `[V, E]` as the picture decoder uses it; only where `needs_codebook` says so."""
        raise NotImplementedError(f"{type(self).__name__} does not use the codebook.")

    @abstractmethod
    def margin(self, layout: ImageTokenLayout) -> int:
        """How many positions behind the image a query may reach."""

    @abstractmethod
    def start(self, layout: ImageTokenLayout, batch_size: int, device: torch.device | str = "cpu") -> DecodingState:
        """An empty canvas."""

    @abstractmethod
    def plan(self, state: DecodingState, noise: PositionNoise) -> Query:
        """Say what the next forward pass computes; guesses it needs are put on the canvas."""

    @abstractmethod
    def step(
        self, probabilities: torch.Tensor, query: Query, state: DecodingState, noise: PositionNoise
    ) -> DecodingState:
        """Commit tokens and guess again.

        Args:
            probabilities: `[B, Q, V]` float32, the law of the token behind each slot of the query.
            query: what `plan` returned.
            state: the run, updated in place.
            noise: the noise that `plan` was given.

        Returns:
            `state`.
        """


def check_window(window: int) -> None:
    """Raise `ValueError` unless `window` is an integer of at least 1."""
    check_count("window", window)


def check_count(name: str, value: int) -> None:
    """Raise `ValueError` unless `value` is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")


def check_number(name: str, value: float, least: float) -> None:
    """Raise `ValueError` unless `value` is a number of at least `least`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
        raise ValueError(f"{name} must be a number of at least {least}, got {value!r}.")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}.")


def _descendants(cls: type) -> list[type]:
    children = cls.__subclasses__()
    return children + [descendant for child in children for descendant in _descendants(child)]
