"""LANTERN, LANTERN++ and Cool-SD: relaxed acceptance over latent neighbours, on Jacobi drafts or a draft model's."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn.functional import pad

from .adaptive_window import check_window_or_auto
from .base import check_choice, check_count, check_number, check_window
from .drafting import INITIALISERS
from .eagle import EagleScheduler, TreeSlots
from .raster_window import Slots
from .relaxation import annealed_factors, nearest_codes, neighbour_mass
from .sibling_verification import Relaxation
from .speculative_jacobi import SJDScheduler
from .verification import at_drafts, residual, speculative_accept

RULES = ("multiplicative", "additive", "annealed")
RESIDUALS = ("vanilla", "release")


class LanternRules:
    """The settings that both schedulers share, and what they mean: functions of laws and drafts, whoever drew them."""

    config: Mapping[str, Any]
    _codebook: torch.Tensor | None = None
    _table: torch.Tensor | None = None  # [V, neighbours + 1] int64
    _neighbours: torch.Tensor | None = None  # [V, neighbours] int64

    @staticmethod
    def check_rules(rule: str, relaxation: float, neighbours: int, decay: float, residual: str) -> None:
        """Raise `ValueError` for the first setting that is out of range."""
        check_choice("rule", rule, RULES)
        check_number("relaxation", relaxation, 0 if rule == "additive" else 1)
        check_count("neighbours", neighbours)
        check_number("decay", decay, 0)
        check_choice("residual", residual, RESIDUALS)
        if rule == "additive" and relaxation > 1:
            raise ValueError(f"relaxation bounds a probability under rule='additive': at most 1, got {relaxation!r}.")
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
        window: drafts verified per pass, at least 1, or "auto".
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

    @register_to_config
    def __init__(
        self,
        window: int | str = 16,
        initialise: str = "law-above",
        rule: str = "multiplicative",
        relaxation: float = 2.0,
        neighbours: int = 10,
        decay: float = 0.7,
        residual: str = "vanilla",
    ):
        check_window_or_auto(window)
        check_choice("initialise", initialise, INITIALISERS)
        self.check_rules(rule, relaxation, neighbours, decay, residual)

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

    @register_to_config
    def __init__(
        self,
        window: int = 16,
        depth: int = 6,
        branches: int = 3,
        rule: str = "multiplicative",
        relaxation: float = 2.0,
        neighbours: int = 10,
        decay: float = 0.7,
        residual: str = "vanilla",
    ):
        check_window(window)
        check_count("depth", depth)
        check_count("branches", branches)
        self.check_rules(rule, relaxation, neighbours, decay, residual)

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
