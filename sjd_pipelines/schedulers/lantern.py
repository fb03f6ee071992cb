"""LANTERN, LANTERN++ and Cool-SD: relaxed acceptance over latent neighbours, on Jacobi drafts or a draft model's."""

from collections.abc import Mapping
from typing import Annotated, Any

from diffusers.configuration_utils import register_to_config

from ..declaration import LONGEST, Card, Setting
from .declaration import Bound, WindowOrAuto
from .drafting import Initialise
from .eagle import Branching, Depth, EagleScheduler, TreeWindow
from .rules.annealed import Annealed
from .rules.lantern import Lantern
from .speculative_jacobi import SJDScheduler

Rule = Annotated[
    str,
    Setting(
        "How the bound is meant: as a multiple of the guess's own probability (multiplicative, LANTERN++), as "
        "probability that look-alikes add (additive, LANTERN), or as a bonus that fades along the window and has no "
        "look-alikes (annealed, Cool-SD).",
        choices=("multiplicative", "additive", "annealed"),
    ),
]
RelaxationBound = Annotated[
    float,
    Setting(
        "The bound: how much more readily guesses pass. Higher is faster and less faithful. The least is lossless: 1, "
        "and for additive 0 (which takes at most 1).",
        most=100,
    ),
]
Neighbours = Annotated[
    int,
    Setting("How many look-alikes may count. More is faster and less faithful, up to the bound.", least=1, most=1000),
]
Decay = Annotated[
    float,
    Setting("For annealed: how quickly the bonus fades along the window. No effect on the other rules.", most=10),
]
Residual = Annotated[
    str,
    Setting(
        "How a rejected guess is replaced: vanilla keeps to the bound, release does as LANTERN's published code does "
        "and strays further. Same speed.",
        choices=("vanilla", "release"),
    ),
]
Spread = Annotated[
    int | None,
    Setting(
        "For annealed: over how many guesses relaxation is the mean bonus. Fewer is more faithful; -1 is all guesses "
        "of a pass, and then the first ones pass several times more readily than relaxation says.",
        least=1,
        most=LONGEST,
    ),
]
MULTIPLES = (1.0, 1.5, 2.0, 4.0)  # of `relaxation`, for the report's curves


def relaxed(settings: Mapping[str, Any]) -> Lantern | Annealed:
    """The rule that the `settings` of both schedulers mean.

    Raises:
        ValueError: they do not go together.
    """
    rule, relaxation, residual = settings["rule"], settings["relaxation"], settings["residual"]
    if rule == "additive" and relaxation > 1:
        raise ValueError(f"relaxation bounds a probability under rule='additive': at most 1, got {relaxation!r}.")
    if rule != "additive" and relaxation < 1:
        raise ValueError(f"relaxation multiplies a probability under rule={rule!r}: at least 1, got {relaxation!r}.")
    if rule == "annealed":
        if residual == "release":
            raise ValueError("residual='release' is made of neighbours, which rule='annealed' has not.")
        return Annealed(relaxation, settings["decay"], settings["spread"])
    additive, release = rule == "additive", residual == "release"
    return Lantern(relaxation, settings["neighbours"], additive=additive, release=release)


class LanternScheduler(SJDScheduler):
    """A draft is accepted with the probability of its latent neighbours added to its own, up to a bound.

    Args:
        window: drafts verified per pass, or "auto".
        initialise: as in `SJDScheduler`.
        rule: `multiplicative` bounds the sum by `relaxation` times the draft's own probability (LANTERN++), `additive`
            bounds the neighbours' share by `relaxation` (LANTERN), `annealed` has no neighbours and multiplies the
            probability by factors that fall over the window and have mean `relaxation` (Cool-SD).
        relaxation: at least 1, or for `additive` between 0 and 1; the least (`annealed`: with decay 0) is
            `SJDScheduler`.
        neighbours: how many neighbours may count.
        decay: how fast the factors of `annealed` fall per draft.
        residual: `vanilla` replaces a rejected draft from (p - q)+; `release` as LANTERN's code does, which lets the
            draft's neighbours keep their probability in full.
        spread: drafts over which `relaxation` is the mean of the `annealed` factors; None is the window. Cool-SD takes
            the few drafts of its draft model. In a window of 16 with decay 0.7 relaxation 1 gives the first draft a
            factor of 8, and with `spread=5` one of 2.6.

    The defaults are this package's. LANTERN's code has 1000 neighbours, an additive bound of 0.1 and its own residual;
    LANTERN++ was run with 10 neighbours and 5 times the probability, among others.
    """

    label = "approximate"
    paper = "Jang et al. 2024, arXiv 2410.03355; Park et al. 2025, arXiv 2502.06352; Li et al. 2026, arXiv 2601.09212"
    card = Card(
        "LANTERN",
        "Accepts a guess more readily if tokens that look like it are likely too, up to a bound that you set. Fewer "
        "passes; fine texture may soften.",
        "For models with large codebooks. Turn relaxation up slowly and watch fine texture.",
    )
    bounds = (
        Bound("LANTERN, additive", "relaxation", (0.0, 0.1, 0.2, 0.4), settings={"rule": "additive"}),
        Bound("LANTERN++, multiplicative", "relaxation", MULTIPLES, settings={"rule": "multiplicative"}),
        Bound("Cool-SD, annealed", "relaxation", (1.0, 1.2, 1.5, 2.0), settings={"rule": "annealed"}),
    )

    @register_to_config
    def __init__(
        self,
        window: WindowOrAuto = 16,
        initialise: Initialise = "law-above",
        rule: Rule = "multiplicative",
        relaxation: RelaxationBound = 2.0,
        neighbours: Neighbours = 10,
        decay: Decay = 0.7,
        residual: Residual = "vanilla",
        spread: Spread = None,
    ):
        self.acceptance = relaxed(self.config)


class LanternEagleScheduler(EagleScheduler):
    """LANTERN as its papers run it: the relaxed rules on the drafts of an EAGLE draft model.

    Every sibling gets its neighbours' share of what the siblings before it have left of the target.

    Args:
        window: as in `EagleScheduler`, as are the next two.
        depth: passes of the drafter before each pass of the target.
        branches: guesses at one position at most.
        rule: as in `LanternScheduler`, as are all that follow; `annealed` factors fall with the depth in the tree.
        relaxation: at least 1, or for `additive` between 0 and 1.
        neighbours: how many neighbours may count.
        decay: how fast the factors of `annealed` fall per draft.
        residual: `vanilla` or `release`.
        spread: None is the depth of the tree.
    """

    label = "approximate"
    paper = LanternScheduler.paper
    card = Card(
        "LANTERN with EAGLE",
        "EAGLE that accepts a guess more readily if tokens that look like it are likely too, up to a bound that you "
        "set. Needs a model that comes with a draft model.",
        LanternScheduler.card.advice,
    )
    bounds = (Bound("LANTERN++, draft model", "relaxation", MULTIPLES, settings={"rule": "multiplicative"}),)

    @register_to_config
    def __init__(
        self,
        window: TreeWindow = 16,
        depth: Depth = 6,
        branches: Branching = 3,
        rule: Rule = "multiplicative",
        relaxation: RelaxationBound = 2.0,
        neighbours: Neighbours = 10,
        decay: Decay = 0.7,
        residual: Residual = "vanilla",
        spread: Spread = None,
    ):
        self.acceptance = relaxed(self.config)
