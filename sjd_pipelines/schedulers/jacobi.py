"""Jacobi decoding with exact-match verification: the very tokens of sequential decoding, in fewer passes."""

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import Card
from .declaration import WindowOrAuto
from .drafting import Initialise
from .raster_window import RasterWindowScheduler, Slots
from .rules.exact_match import exact_match


class JacobiScheduler(RasterWindowScheduler):
    """Greedy Jacobi decoding: a draft holds if it is the target's most likely token.

    Draws the picture of greedy sequential decoding whatever the temperature of the call, so that it is exact at
    temperature 0 alone.

    Args:
        window: drafts verified per pass, or "auto".
        initialise: how a slot that enters the window is guessed, a key of `INITIALISERS`.
    """

    label = "approximate"
    greedy_label = "exact"
    paper = "Santilli et al. 2023, arXiv 2305.10427 (greedy)"
    card = Card(
        "Jacobi (greedy)",
        "Guesses many tokens ahead and keeps those that are the model's first choice. Draws without chance: the "
        "picture is that of temperature 0, whatever temperature and seed are set.",
        "Use it for temperature 0. For sampled pictures take Seeded Jacobi.",
    )
    shares_noise = True
    stores_laws = False

    @register_to_config
    def __init__(self, window: WindowOrAuto = 16, initialise: Initialise = "repeat-above"):
        pass

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
        window: drafts verified per pass, or "auto".
        initialise: how a slot that enters the window is guessed, a key of `INITIALISERS`.
    """

    label = "exact"
    greedy_label = None
    paper = "predictive sampling, Wiggers & Hoogeboom 2020, arXiv 2002.09928"
    card = Card(
        "Seeded Jacobi",
        "Guesses many tokens ahead and keeps those that the seed would have chosen anyway: fewer passes than "
        "sequential, and not a pixel differs.",
        "A good first choice: nothing but the time changes.",
    )

    @register_to_config
    def __init__(self, window: WindowOrAuto = 16, initialise: Initialise = "law-above"):
        pass

    def choices(self, slots: Slots) -> torch.Tensor:
        return slots.seeded_choice
