"""Seeded Jacobi decoding whose drafts a small network revises before the target sees them."""

from dataclasses import dataclass
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import LONGEST, Card, Setting
from ..decoding.noise import PositionNoise
from ..decoding.query import Query
from ..decoding.reviser import Reviser
from ..decoding.sampling import race
from .declaration import WindowOrAuto
from .drafting import Initialise
from .jacobi import SeededJacobiScheduler
from .raster_window import WindowState

Reach = Annotated[
    int,
    Setting(
        "How many of the guesses are revised, the first ones. More saves a few passes and takes a little longer each "
        "time.",
        least=1,
        most=LONGEST,
    ),
]
Revisions = Annotated[
    int,
    Setting(
        "How often they are revised before each pass. More saves passes where the network is good, and takes longer "
        "each time.",
        least=1,
        most=64,
    ),
]


@dataclass
class RevisedState(WindowState):
    """Adds what revising drafts needs.

    Attributes:
        predicted: `[B, 1]` int64: the last position that the target predicts in this pass.
    """

    predicted: torch.Tensor | None = None

    @property
    def reviser(self) -> Reviser:
        """The network at work on this run."""
        return self.companions["reviser"]


class RevisedJacobiScheduler(SeededJacobiScheduler):
    """Token-identical to `AutoregressiveScheduler` for the same seed, in fewer passes than Jacobi drafts alone.

    The target made its choices in a window after drafts some of which have turned out wrong. A draft reviser says
    what that changes, and the seed's noise chooses again. Where nothing has changed the target's own choice stays, so
    that a weak reviser does little harm; nothing it says is kept unless the target agrees.
    The pipeline needs a `reviser`.

    Args:
        window: drafts verified per pass, or "auto".
        reach: drafts that are revised: the first ones of the window. The target itself revises those
            after them several times before their turn comes.
        revisions: times they are revised before each pass of the target. Each lets a change spread one
            token further.
        initialise: how a slot that enters the window is guessed, a key of `INITIALISERS`.
    """

    paper = "this package; seeded verification after Wiggers & Hoogeboom 2020, arXiv 2002.09928"
    card = Card(
        "Revised Jacobi",
        "Seeded Jacobi whose guesses a tiny network revises before the model sees them: fewer passes at hardly any "
        "cost, and not a pixel differs from sequential. Needs a model that comes with a draft reviser.",
        "Start here if your model has a draft reviser, as the bundled one has. Where a pass takes long however much "
        "it works on, as on a GPU with one picture at once, raise the window and reach to 32 and revisions to 3.",
    )
    state_type = RevisedState
    companions = ("reviser",)
    raster_only = True  # a reviser looks at rows and columns

    @register_to_config
    def __init__(
        self,
        window: WindowOrAuto = 16,
        reach: Reach = 8,
        revisions: Revisions = 2,
        initialise: Initialise = "law-above",
    ):
        pass

    def ask(self, state: RevisedState, noise: PositionNoise) -> Query:
        query = super().ask(state, noise)
        count = min(self.config.reach, state.window)
        if state.predicted is not None and count:
            query.token_ids[:, 1 : count + 1] = self._revise(query.predicts[:, :count], state)
        state.predicted = query.predicts[:, -1:]
        return query

    def _revise(self, positions: torch.Tensor, state: RevisedState) -> torch.Tensor:
        """Revise the drafts at `positions` `[B, C]`, on the canvas too; returns them."""
        drafts, laws = state.canvas.gather(1, positions), state.reviser.at(positions)
        exponential = state.shared_noise.read(positions)
        known = positions <= state.predicted  # of what the target has not predicted there is nothing to revise
        for _ in range(self.config.revisions):
            guesses = race(laws(state.canvas), exponential)
            drafts = torch.where(known, guesses, drafts)
            state.canvas.scatter_(1, positions, drafts)
        return drafts
