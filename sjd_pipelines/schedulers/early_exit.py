"""Seeded Jacobi decoding that leaves the iteration early."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import LONGEST, Card, Setting
from ..decoding.noise import PositionNoise
from ..decoding.query import Query
from ..decoding.target import Companion, Target
from .declaration import Bound, Window
from .drafting import Initialise
from .jacobi import SeededJacobiScheduler
from .raster_window import Slots, WindowState
from .verification import at_drafts

Exit = Annotated[
    int,
    Setting(
        "How often the model may change its mind about a token before it is kept as it is. Fewer is faster and less "
        "faithful; more than it ever needs is exact.",
        least=1,
        most=LONGEST,
    ),
]
Margin = Annotated[
    float,
    Setting(
        "How narrowly a guess may have lost against the model's own choice and still be kept, as a difference of "
        "log-probabilities with the seed's noise in them. More is faster and less faithful; 0 keeps none. Without "
        "effect at temperature 0.",
        most=100,
    ),
]
Block = Annotated[
    int,
    Setting(
        "Tokens that are settled together: none after them counts before they are. 0 lets the window slide.",
        most=LONGEST,
    ),
]


@dataclass
class EarlyExitState(WindowState):
    """Adds how often each token has been chosen.

    Attributes:
        iterations: `[B, N + margin]` int64: choices of the target at each position so far, its block's alone.
    """

    iterations: torch.Tensor | None = None


class EarlyExitScheduler(SeededJacobiScheduler):
    """CEED-VLA's early exit: after so many iterations a token is committed, whether or not it has converged.

    An iteration of a token is a pass that chooses it anew behind the drafts before it. In the paper n tokens go
    through a fixed number of iterations and are given out as they are: `block=n`, with a window of 2 n. Converged
    tokens at the front are committed at once, which changes nothing of what comes out. Without blocks every token has
    its own count, which begins when it enters the window. Made for models that were distilled to be right early.

    Args:
        window: drafts verified per pass.
        exit_after: iterations of a token, at most.
        margin: a draft also holds whose log p + Gumbel noise is so little below that of the target's choice.
        block: tokens of a block; 0 is none.
        initialise: how a slot that enters the window is guessed, a key of `INITIALISERS`.

    Raises:
        ValueError: a block is larger than the window.
    """

    label = "approximate"
    paper = "Song et al. 2025, arXiv 2506.13725"
    card = Card(
        "Early exit",
        "Seeded Jacobi that keeps a guess after a number of passes even if the model would still change it: fewer "
        "passes, and pictures that may go wrong.",
        "For models that were distilled to be right early. Lower exit_after until pictures get worse.",
    )
    bounds = (Bound("Early exit", "exit_after", (16, 8, 4, 2)),)
    state_type = EarlyExitState

    @register_to_config
    def __init__(
        self,
        window: Window = 16,
        exit_after: Exit = 8,
        margin: Margin = 0.0,
        block: Block = 0,
        initialise: Initialise = "law-above",
    ):
        if block > window:
            raise ValueError(f"block must not be larger than the window, {window}, got {block}.")

    def start(self, target: Target, companions: Mapping[str, Companion] | None = None) -> EarlyExitState:
        state = super().start(target, companions)
        state.iterations = torch.zeros_like(state.canvas)
        return state

    def accept(self, slots: Slots) -> torch.Tensor:
        positions = slots.positions[:, :-1]
        keep = super().accept(slots) | (slots.state.iterations.gather(1, positions) >= self.config.exit_after)
        if self.config.margin:
            scores = slots.target[:, :-1] / slots.state.shared_noise.read(positions)  # exp(log p + Gumbel noise)
            keep |= at_drafts(scores, slots.drafts).log() >= scores.amax(-1).log() - self.config.margin
        return keep

    def step(
        self, probabilities: torch.Tensor, query: Query, state: EarlyExitState, noise: PositionNoise
    ) -> EarlyExitState:
        state = super().step(probabilities, query, state, noise)
        counted = torch.ones_like(query.predicts)
        if self.config.block:
            ends = (state.committed // self.config.block + 1) * self.config.block
            counted = (query.predicts < ends[:, None]).long()
        state.iterations.scatter_add_(1, query.predicts, counted)
        return self._commit_the_rest(state)

    def _commit_the_rest(self, state: EarlyExitState) -> EarlyExitState:
        """Commit what is left of a picture if all of it has gone through its iterations: no pass has to read it."""
        count = state.layout.num_tokens
        open_ = torch.arange(count, device=state.canvas.device) >= state.committed[:, None]  # [B, N]
        over = ~(open_ & (state.iterations[:, :count] < self.config.exit_after)).any(1, keepdim=True)
        stamps = state.accepted_at[:, :count]
        stamps.masked_fill_(open_ & over, state.draw - 1)
        state.committed = torch.where(over[:, 0], count, state.committed)
        return state
