"""Seeded Jacobi decoding whose drafts a draft model corrects before the target sees them."""

from dataclasses import dataclass
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import LONGEST, Card, Setting
from ..decoding.drafter import Drafter, DraftQuery
from ..decoding.noise import PositionNoise
from ..decoding.query import Query
from ..decoding.sampling import most_likely, race
from .declaration import Window
from .drafting import Initialise
from .tree_jacobi import Branches, TreeJacobiScheduler, TreeState

CHOICES = 4  # tokens that are considered at each place: the draft itself and who else may branch off there

Reach = Annotated[
    int,
    Setting(
        "How many of the guesses are corrected, the first ones. More saves passes and makes the runs of the draft "
        "model a little longer.",
        least=1,
        most=LONGEST,
    ),
]
Corrections = Annotated[
    int,
    Setting(
        "How often the draft model goes over them before each pass. More saves passes where it is good; each costs a "
        "run of the draft model.",
        least=1,
        most=64,
    ),
]
Branching = Annotated[
    int,
    Setting(
        "How many side chains are tried where another token came close. More saves passes, but each pass works on "
        "more tokens.",
        least=1,
        most=64,
    ),
]
Depth = Annotated[
    int,
    Setting(
        "Tokens of a side chain. Longer ones save passes where the draft model is good; each token costs a small run "
        "of the draft model.",
        least=1,
        most=64,
    ),
]


@dataclass
class CorrectedState(TreeState):
    """Adds what correcting drafts needs.

    Attributes:
        seen: what the target saw at the places of the last window.
    """

    seen: DraftQuery | None = None

    @property
    def drafter(self) -> Drafter:
        """The draft model at work on this run."""
        return self.companions["drafter"]


class CorrectedJacobiScheduler(TreeJacobiScheduler):
    """Token-identical to `AutoregressiveScheduler` for the same seed, in fewer passes than Jacobi drafts alone.

    The target's choices in a window were made after drafts some of which have turned out wrong. The draft model says
    what that changes: its guess after the new tokens minus its guess after the old ones, added to what the target
    itself found. Where nothing has changed the target's own choice stays, so a weak draft model does little harm.
    Side chains begin with tokens that came close to being the draft; the draft model continues them.
    The pipeline needs a `drafter`.

    Args:
        window: drafts on the main chain.
        reach: drafts that are corrected: the first ones of the window. The target itself revises those
            after them several times before their turn comes.
        corrections: passes of the draft model over them before each pass of the target. Each lets a change
            spread one token further.
        branches: side chains per pass.
        depth: tokens of a side chain; each costs a pass of the draft model over the branches.
        initialise: how a slot that enters the window is guessed, a key of `INITIALISERS`.
    """

    paper = "this package; draft model after Li et al. 2024, arXiv 2401.15077"
    card = Card(
        "Corrected Jacobi",
        "Seeded Jacobi whose guesses a small draft model corrects before the model sees them: the fewest passes, and "
        "not a pixel differs from sequential. Needs a model that comes with a draft model.",
        "Start here if your model has a draft model and many layers: it takes the fewest passes of all exact "
        "decoders. With few layers, as in the bundled model, the draft model costs as much time as it saves.",
    )
    state_type = CorrectedState
    companions = ("drafter",)
    raster_only = True  # a drafter has rows and columns in its rotary positions

    @register_to_config
    def __init__(
        self,
        window: Window = 32,
        reach: Reach = 16,
        corrections: Corrections = 2,
        branches: Branching = 4,
        depth: Depth = 4,
        initialise: Initialise = "law-above",
    ):
        pass

    def step(
        self, probabilities: torch.Tensor, query: Query, state: CorrectedState, noise: PositionNoise
    ) -> CorrectedState:
        positions = query.positions[:, 1 : state.window + 1]
        state = super().step(probabilities, query, state, noise)
        # The first slot is a committed token, which the drafter has seen before.
        tokens = query.token_ids.gather(1, state.path[:, 1:])
        slot = torch.arange(state.reads, device=tokens.device)
        state.seen = DraftQuery(tokens, positions, positions + 1, slot <= positions[..., None], moves=state.moves)
        return state

    def draft(self, main: Query, state: CorrectedState) -> Branches:
        if state.seen is None:
            return super().draft(main, state)
        scores = self._correct(main, state)  # [B, C, V]
        best, tokens = scores.topk(min(CHOICES, scores.shape[-1]), -1)
        positions, drafts = main.positions[:, 1 : best.shape[1] + 1], main.token_ids[:, 1 : best.shape[1] + 1]
        # Nothing branches off after the picture, nor where the drafter has said nothing (all scores are zero).
        doubt = 0.5 * best[..., 1:] / best[..., :1].clamp(min=torch.finfo(best.dtype).tiny)  # [B, C, CHOICES - 1]
        doubt = doubt.masked_fill((positions >= state.layout.num_tokens)[..., None], 0.0)
        certain = 1 - doubt.sum(-1).clamp(max=0.9)  # [B, C]
        reach = certain.cumprod(1) / certain  # chance that all drafts before a slot hold
        value, places = (reach[..., None] * doubt).flatten(1).topk(min(self.config.branches, doubt[0].numel()), 1)
        index = places // doubt.shape[-1]  # [B, K]
        # A branch without worth repeats the draft, so that chance never decides what is tried.
        first = torch.where(value > 0, tokens[..., 1:].flatten(1).gather(1, places), drafts.gather(1, index))
        at = positions.gather(1, index)
        slots, visible = self.branch_slots(at, main, state)
        return Branches(index, at, self._follow(first, at, slots, visible, state), slots, visible)

    def _correct(self, main: Query, state: CorrectedState) -> torch.Tensor:
        """Correct the first drafts of `main`; returns the perturbed scores they were chosen by, `[B, C, V]`."""
        count = min(self.config.reach, state.window)
        # The committed tokens are reviewed too: it is how the drafter gets to see them.
        seen = state.seen.first(state.furthest(state.window + 1) + count)
        state.drafter.review(seen)
        positions, predicts, visible = main.positions[:, :count], main.predicts[:, :count], main.visible[:, :count]
        # Behind what the target has seen the drafter goes on by itself, a token at a time.
        beyond = positions - state.seen.positions[:, -1:]  # [B, C]
        exponential = state.shared_noise.read(predicts)
        for spread in range(1, self.config.corrections + 1):
            law = state.drafter.laws(DraftQuery(main.token_ids[:, :count], positions, predicts, visible))
            scores = law / exponential
            guesses = torch.where(beyond <= spread, most_likely(scores), main.token_ids[:, 1 : count + 1])
            main.token_ids = torch.cat([main.token_ids[:, :1], guesses, main.token_ids[:, count + 1 :]], 1)
        return scores.masked_fill((beyond > self.config.corrections)[..., None], 0.0)

    def _follow(
        self,
        first: torch.Tensor,
        at: torch.Tensor,
        slots: torch.Tensor,
        visible: torch.Tensor,
        state: CorrectedState,
    ) -> torch.Tensor:
        """Let the drafter go on after the `first` tokens `[B, K]` of branches, see `Branches`: `[B, K, D]` tokens."""
        tokens = [first]
        for level in range(self.config.depth - 1):
            positions, parents = at + level, at - 1 if level == 0 else slots[..., level - 1]
            query = DraftQuery(
                tokens[-1], positions, positions + 1, visible[:, :, level], slots=slots[..., level], parents=parents
            )
            tokens.append(race(state.drafter.laws(query), state.shared_noise.read(positions + 1)))  # [B, K]
        return torch.stack(tokens, -1)
