"""Jacobi decoding with exact-match verification: the very tokens of sequential decoding, in fewer passes."""

import torch
from diffusers.configuration_utils import register_to_config

from .adaptive_window import check_window_or_auto
from .base import check_choice
from .drafting import INITIALISERS
from .raster_window import RasterWindowScheduler, Slots
from .verification import exact_match


class JacobiScheduler(RasterWindowScheduler):
    """Greedy Jacobi decoding: a draft holds if it is the target's most likely token.

    Equals greedy sequential decoding whatever the temperature of the call.

    Args:
        window: drafts verified per pass, at least 1, or "auto".
        initialise: how a slot that enters the window is guessed, a key of `INITIALISERS`.
    """

    label = "exact"
    paper = "Santilli et al. 2023, arXiv 2305.10427 (greedy)"
    shares_noise = True
    stores_laws = False

    @register_to_config
    def __init__(self, window: int | str = 16, initialise: str = "repeat-above"):
        check_window_or_auto(window)
        check_choice("initialise", initialise, INITIALISERS)

    def choices(self, slots: Slots) -> torch.Tensor:
        """`[B, W + 1]` int64: the token the target chooses at each slot."""
        return slots.likeliest

    def accept(self, slots: Slots) -> torch.Tensor:
        return exact_match(slots.drafts, self.choices(slots)[:, :-1])

    def redraft(self, slots: Slots) -> torch.Tensor:
        return self.choices(slots)


class SeededJacobiScheduler(JacobiScheduler):
    """Jacobi decoding of the sampled sequence: a draft holds if it equals argmax(p / noise), fixed noise per position.

    Token-identical to `AutoregressiveScheduler` for the same seed, at any window: the choice at a position depends on
    its noise and on the tokens before it alone. No draft law and no residual are needed, so any guess is allowed.

    Args:
        window: drafts verified per pass, at least 1, or "auto".
        initialise: how a slot that enters the window is guessed, a key of `INITIALISERS`.
    """

    paper = "predictive sampling, Wiggers & Hoogeboom 2020, arXiv 2002.09928"

    @register_to_config
    def __init__(self, window: int | str = 16, initialise: str = "law-above"):
        check_window_or_auto(window)
        check_choice("initialise", initialise, INITIALISERS)

    def choices(self, slots: Slots) -> torch.Tensor:
        return slots.seeded_choice
