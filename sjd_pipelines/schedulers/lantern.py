"""LANTERN, LANTERN++ and Cool-SD: relaxed acceptance over latent neighbours, on Jacobi drafts or a draft model's."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn.functional import pad

from .declaration import Bound, Card, Setting, WindowOrAuto
from .drafting import Initialise
from .eagle import Branching, Depth, EagleScheduler, TreeSlots, TreeWindow
from .raster_window import Slots
from .relaxation import annealed_factors, nearest_codes, neighbour_mass
from .sibling_verification import Relaxation
from .speculative_jacobi import SJDScheduler
from .verification import at_drafts, residual, speculative_accept

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
MULTIPLES = (1.0, 1.5, 2.0, 4.0)  # of `relaxation`, for the report's curves


class LanternRules:
    """The settings that both schedulers share, and what they mean: functions of laws and drafts, whoever drew them."""

    config: Mapping[str, Any]
    _codebook: torch.Tensor | None = None
    _table: torch.Tensor | None = None  # [V, neighbours + 1] int64
    _neighbours: torch.Tensor | None = None  # [V, neighbours] int64

    @staticmethod
    def check_rules(rule: str, relaxation: float, residual: str) -> None:
        """Raise `ValueError` for settings that do not go together."""
        if rule == "additive" and relaxation > 1:
            raise ValueError(f"relaxation bounds a probability under rule='additive': at most 1, got {relaxation!r}.")
        if rule != "additive" and relaxation < 1:
            raise ValueError(
                f"relaxation multiplies a probability under rule={rule!r}: at least 1, got {relaxation!r}."
            )
        if rule == "annealed" and residual == "release":
            raise ValueError("residual='release' is made of neighbours, which rule='annealed' has not.")

    @property
    def needs_codebook(self) -> bool:
        return self.config["rule"] != "annealed"

    def prepare_codebook(self, vectors: torch.Tensor) -> None:
        known = self._codebook
        if known is None or known.device != vectors.device or not torch.equal(known, vectors):
            self._codebook = vectors
            # One more than lend probability: the release's residual takes it too.
            self._table = nearest_codes(vectors, self.config["neighbours"] + 1)
            self._neighbours = self._table[:, : self.config["neighbours"]].contiguous()

    def relaxed_mass(self, target: torch.Tensor, drafts: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
        """What each draft is accepted with: `[B, W, V]`, `[B, W]`, `annealed` factors `[W]` -> `[B, W]`."""
        mass = at_drafts(target, drafts)
        if factors is not None:
            return mass * factors
        return mass + self._relief(target, drafts, mass)

    def taken_away(self, target: torch.Tensor, draft_law: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
        """What the rejection of a draft takes from the target: `[B, W, V]` twice, `[B, W]` -> `[B, W, V]`."""
        if self.config["residual"] == "vanilla":
            return draft_law
        relaxed = self._relief(target, drafts, at_drafts(target, drafts)) > 0  # [B, W]
        without_neighbours = draft_law.scatter(-1, self._table[drafts.clamp(max=len(self._table) - 1)], 0.0)
        return torch.where(relaxed[..., None], without_neighbours, draft_law)

    def annealed(self, window: int, device: torch.device) -> torch.Tensor | None:
        """Factors `[W]` by place behind the last token; None unless the rule has them."""
        if self.config["rule"] != "annealed":
            return None
        return annealed_factors(window, self.config["relaxation"], self.config["decay"], device)

    def _relief(self, target: torch.Tensor, drafts: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
        """What the neighbours of each draft lend to its own probability: `[B, W, V]`, `[B, W]` twice -> `[B, W]`."""
        bound = self.config["relaxation"]
        if self.config["rule"] == "multiplicative":
            bound = (bound - 1) * probability[..., None]
        return neighbour_mass(target, drafts, self._neighbours, bound)


class LanternScheduler(LanternRules, SJDScheduler):
    """A draft is accepted with the probability of its latent neighbours added to its own, up to a bound.

    Over one token the total variation from the target is the gain in acceptance, whatever the rule, as long as the
    residual is the vanilla one.

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
    ):
        self.check_rules(rule, relaxation, residual)

    def accept(self, slots: Slots) -> torch.Tensor:
        factors = self.annealed(slots.drafts.shape[1], slots.drafts.device)
        mass = self.relaxed_mass(slots.target[:, :-1], slots.drafts, factors)
        return speculative_accept(mass, slots.draft_probability, slots.uniforms)

    def front_remainder(self, slots: Slots) -> torch.Tensor:
        target = slots.at_front(slots.target)  # [B, 1, V]
        draft = slots.at_front(pad(slots.drafts, (0, 1)))  # [B, 1]
        return residual(target, self.taken_away(target, slots.front_law, draft))


class LanternEagleScheduler(LanternRules, EagleScheduler):
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
    ):
        self.check_rules(rule, relaxation, residual)

    def relaxed_rule(self, slots: TreeSlots) -> Relaxation:
        tree = slots.tree
        factors = self.annealed(len(tree.levels), slots.target.device)
        if factors is not None:
            factors = factors[tree.depth[tree.inner]]  # [M]

        def relax(
            target: torch.Tensor, draft_law: torch.Tensor, sibling: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            drafts = sibling[..., 0]  # [B, M]
            mass = self.relaxed_mass(target, drafts, factors)[..., None]
            return mass, self.taken_away(target, draft_law, drafts)

        return relax
