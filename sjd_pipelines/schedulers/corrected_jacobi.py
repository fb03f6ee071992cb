"""Seeded Jacobi decoding whose drafts a draft model corrects before the target sees them."""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import register_to_config

from ..decoding.drafter import Drafter, DraftQuery
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.sampling import race
from ..decoding.state import DecodingState, Query
from .adaptive_window import check_window_or_auto
from .base import check_choice, check_count
from .drafting import INITIALISERS
from .jacobi import SeededJacobiScheduler


@dataclass
class CorrectedState(DecodingState):
    """Adds what correcting drafts needs.

    Attributes:
        drafter: the draft model at work on this run; the pipeline sets it.
        seen: the last query, with the tokens that the target saw.
    """

    drafter: Drafter | None = None
    seen: Query | None = None


class CorrectedJacobiScheduler(SeededJacobiScheduler):
    """Token-identical to `AutoregressiveScheduler` for the same seed, in fewer passes than Jacobi drafts alone.

    The target's choices in a window were made behind drafts some of which have turned out wrong. The draft model says
    what that changes: its guess behind the new tokens minus its guess behind the old ones, added to what the target
    itself found. Where nothing has changed the target's own choice stays, so a weak draft model does little harm.
    The pipeline needs a `drafter`.

    Args:
        window: as in `SeededJacobiScheduler`.
        corrections: passes of the draft model over the window before each pass of the target, at least 1. Each lets a
            change reach one token further.
        initialise: how a slot that enters the window is guessed, a key of `INITIALISERS`.
    """

    paper = "this package; draft model after Li et al. 2024, arXiv 2401.15077"
    state_type = CorrectedState

    @register_to_config
    def __init__(self, window: int | str = 32, corrections: int = 2, initialise: str = "law-above"):
        check_window_or_auto(window)
        check_count("corrections", corrections)
        check_choice("initialise", initialise, INITIALISERS)

    @property
    def needs_drafter(self) -> bool:
        return True

    def plan(self, state: CorrectedState, noise: PositionNoise) -> Query:
        query = super().plan(state, noise)
        if state.seen is not None:
            query.token_ids = self._correct(query, state, noise)
        state.seen = query
        return query

    def _correct(self, query: Query, state: CorrectedState, noise: PositionNoise) -> torch.Tensor:
        """The tokens of the query after the drafter's corrections, `[B, 1 + W]` int64."""
        seen, tokens = state.seen, query.token_ids
        # The first slot of a query is a committed token, which the drafter has seen before.
        state.drafter.review(DraftQuery(seen.token_ids[:, 1:], seen.positions[:, 1:], seen.visible[:, 1:]))
        positions = query.positions[:, :-1]
        # Behind what the target has seen the drafter goes on by itself, a token at a time.
        beyond = positions - seen.positions[:, -1:]  # [B, W]
        exponential = noise.exponential(positions + 1, Purpose.SAMPLE, state.layout.vocabulary_size)
        for reach in range(1, self.config.corrections + 1):
            law = state.drafter.laws(DraftQuery(tokens[:, :-1], positions, query.visible[:, :-1]))  # [B, W, V]
            drafts = torch.where(beyond <= reach, race(law, exponential), tokens[:, 1:])
            tokens = torch.cat([tokens[:, :1], drafts], 1)
        return tokens
