"""The contract between pipeline and scheduler: tensors in, tensors out, no model and no cache."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..configured import Configured
from ..declaration import Card
from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise
from ..decoding.query import Query
from ..decoding.state import DecodingState
from ..decoding.target import Companion, Target
from .declaration import Bound
from .registry import SCHEDULERS
from .rules.speculative import Speculative


@dataclass
class RunState(DecodingState):
    """The state of one batch, with what its scheduler needs of the target.

    Attributes:
        acceptance: the scheduler's rule at work on this run; None where drafts must match exactly.
    """

    acceptance: Speculative | None = None


class DecodingScheduler(Configured):
    """Base of every scheduler. A run is `start`, then `plan`, forward pass and `step` until the image is complete.

    `plan` is `prepare`, which works with what the host knows, and `ask`, which works on the device. `ask` and `step`
    take from the host nothing but what `prepare` has put into `state.shape`, so that they can be recorded.

    It holds settings and nothing of a run, so that runs of several models may share it. What a run needs of its target
    is in its state: `companions` by name, and the rule of `acceptance` at work.

    A subclass declares its settings in its constructor, each with a `Setting`, its words in a `Card` and, if it is
    approximate, its `bounds`; a line in `registry.py` makes it known to everything else.

    Attributes:
        label: `exact`, `lossless` or `approximate`: what it claims at any temperature above 0.
        greedy_label: what it claims at temperature 0, where it claims more there; None: the same.
        paper: where it comes from.
        companions: names of the networks beside the target that it needs.
        raster_only: whether it decodes one grid in raster order only.
        parallel: whether it decodes models that make tokens in groups (PAR), and those only.
        recordable: whether passes of one `state.shape` are all alike to the device, see `ask`.
        acceptance: the rule by which drafts that were sampled at random hold; None: they must match exactly. Runs ask
            `state.acceptance`, which knows the codebook.
        state_type: what `start` returns.
    """

    registry = SCHEDULERS
    label: ClassVar[str]
    greedy_label: ClassVar[str | None] = None
    paper: ClassVar[str]
    card: ClassVar[Card]
    bounds: ClassVar[tuple[Bound, ...]] = ()
    companions: ClassVar[tuple[str, ...]] = ()
    raster_only: ClassVar[bool] = False
    parallel: ClassVar[bool] = False
    recordable: ClassVar[bool] = True
    acceptance: Speculative | None = None
    state_type: ClassVar[type[RunState]] = RunState

    @property
    def settings(self) -> frozenset[tuple[str, Any]]:
        """By name."""
        return frozenset((name, value) for name, value in self.config.items() if not name.startswith("_"))

    @property
    def window(self) -> int:
        """Drafts verified per pass, at most; `ParallelJacobiScheduler`: per row."""
        return self.config.window

    @classmethod
    def label_at(cls, temperature: float) -> str:
        """What it claims of a call at this temperature."""
        return cls.greedy_label if cls.greedy_label and temperature == 0 else cls.label

    @classmethod
    def claim(cls) -> str:
        """Its label in words, for tables."""
        return f"{cls.greedy_label} at temperature 0, else {cls.label}" if cls.greedy_label else cls.label

    def unsuited(self, layout: ImageTokenLayout, companions: Collection[str]) -> str | None:
        """Why it can't decode a target with this layout and these companions; None if it can."""
        if self.parallel and layout.parallel == 1:
            return "decodes models that make tokens in groups (PAR), and this model makes one after the other"
        if layout.parallel > 1 and not self.parallel:
            return f"makes tokens one after the other, and this model makes {layout.parallel} at once (PAR)"
        if self.raster_only and not layout.is_raster:
            return "decodes one grid in raster order, and this model makes its tokens otherwise"
        for name in self.companions:
            if name not in companions:
                return f"needs a {name} and this model has none"
        return None

    def check_target(self, layout: ImageTokenLayout, companions: Collection[str]) -> None:
        """Raise `ValueError` with the reason if it can't decode such a target."""
        reason = self.unsuited(layout, companions)
        if reason is not None:
            instead = "the scheduler par" if layout.parallel > 1 else "another scheduler"
            raise ValueError(f"{type(self).__name__} {reason}; choose {instead}.")

    @abstractmethod
    def margin(self, layout: ImageTokenLayout) -> int:
        """How many positions after the image the canvas has: as far as a query may reach."""

    def law_slots(self, layout: ImageTokenLayout) -> int:
        """Positions whose laws are kept."""
        return 0

    def start(self, target: Target, companions: Mapping[str, Companion] | None = None) -> RunState:
        """An empty canvas, with what this run needs of its target and the `companions` at work on it."""
        layout = target.layout
        margin, law_slots = self.margin(layout), self.law_slots(layout)
        state = self.state_type.empty(layout, target.batch_size, margin, law_slots, target.device, companions)
        if self.recordable and target.runner is not None:
            state.clock = torch.zeros((), dtype=torch.int64, device=target.device)
        if self.acceptance is not None:
            state.acceptance = self.acceptance.running(target)
        return state

    def plan(self, state: DecodingState, noise: PositionNoise) -> Query:
        """Say what the next forward pass computes; guesses it needs are put on the canvas."""
        self.prepare(state, noise)
        return self.ask(state, noise)

    def prepare(self, state: DecodingState, noise: PositionNoise) -> None:
        """What of a plan the host decides: `state.shape`, and noise that is made ahead."""

    @abstractmethod
    def ask(self, state: DecodingState, noise: PositionNoise) -> Query:
        """What of a plan is the device's, given what `prepare` has decided."""

    @abstractmethod
    def step(
        self, probabilities: torch.Tensor, query: Query, state: DecodingState, noise: PositionNoise
    ) -> DecodingState:
        """Commit tokens and guess again.

        Args:
            probabilities: `[B, Q, V]` float32, the law of what each slot of the query predicts.
            query: what `plan` returned.
            state: the run, updated in place.
            noise: the noise that `plan` was given.

        Returns:
            `state`.
        """
