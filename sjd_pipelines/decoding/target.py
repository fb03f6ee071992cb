"""The contracts of the decode loop: what it asks of a model, of a scheduler and of networks that look on."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from .layout import ImageTokenLayout
from .memory import Memory
from .noise import PositionNoise
from .query import Query
from .sampling import Sampling

if TYPE_CHECKING:  # a state holds companions, a runner runs targets
    from .runner import Runner
    from .state import DecodingState


@dataclass
class TargetPass:
    """What one forward pass of the target gave.

    Attributes:
        query: what it was asked.
        hidden: `[R, Q, D]` final hidden states, unconditional rows last.
        logits: `[B, Q, V]`, guided.
    """

    query: Query
    hidden: torch.Tensor
    logits: torch.Tensor


class Target(Protocol):
    """A model with one batch of prompts behind it.

    Attributes:
        layout: of the tokens it makes.
        length: canvas positions that it has room for.
        batch_size: B.
        device: where it runs.
        sampling: how its tokens are sampled.
        memory: what runs of its model leave to later ones.
        runner: how passes are executed that are recorded; None: as they are written.
    """

    layout: ImageTokenLayout
    length: int
    batch_size: int
    device: torch.device
    sampling: Sampling
    memory: Memory
    runner: "Runner | None"

    def codebook(self) -> torch.Tensor:
        """`[V, E]`: the codebook as the picture decoder looks it up, so that near vectors are alike in the picture."""

    def run(self, query: Query) -> TargetPass:
        """One forward pass."""

    def law(self, logits: torch.Tensor, predicts: torch.Tensor) -> torch.Tensor:
        """The law that is sampled: guided logits `[B, Q, V]` at positions `[B, Q]` -> `[B, Q, V]` float32."""


class HostTarget(Target, Protocol):
    """A target that lends its companions what they have not: embedding, head and guidance.

    Attributes:
        image_embeds: `[V, D]`, its embedding of every image token.
    """

    image_embeds: torch.Tensor

    def guided_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final hidden states `[R, Q, D]` -> `[B, Q, V]` guided logits."""


class Companion(Protocol):
    """A network beside the target that helps its scheduler to guess, or anyone else who wants to see all passes."""

    def observe(self, seen: TargetPass) -> None:
        """Called after each pass of the target, before the scheduler's step."""


class Scheduler(Protocol):
    """Which tokens to draft, verify and commit, see `DecodingScheduler`."""

    def margin(self, layout: ImageTokenLayout) -> int:
        """How many positions after the image the canvas has."""

    def check_target(self, layout: ImageTokenLayout, companions: Collection[str]) -> None:
        """Raise `ValueError` with the reason if it can't decode such a target with these companions."""

    recordable: bool
    companions: tuple[str, ...]

    @property
    def settings(self) -> frozenset[tuple[str, Any]]:
        """By name."""

    def start(self, target: Target, companions: Mapping[str, Companion] | None = None) -> "DecodingState":
        """An empty canvas, and what a run of this target needs."""

    def plan(self, state: "DecodingState", noise: PositionNoise) -> Query:
        """Say what the next forward pass computes: `prepare` and `ask`."""

    def prepare(self, state: "DecodingState", noise: PositionNoise) -> None:
        """Its first part, on the host."""

    def ask(self, state: "DecodingState", noise: PositionNoise) -> Query:
        """Its second part, on the device."""

    def step(
        self, probabilities: torch.Tensor, query: Query, state: "DecodingState", noise: PositionNoise
    ) -> "DecodingState":
        """Commit tokens and guess again."""
