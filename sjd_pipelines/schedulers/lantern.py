"""LANTERN, LANTERN++ and Cool-SD: relaxed acceptance over latent neighbours, on Jacobi drafts."""

import torch
from diffusers.configuration_utils import register_to_config

from ..decoding.noise import Purpose
from .base import check_choice, check_count, check_number, check_window
from .drafting import INITIALISERS
from .raster_window import Slots, front_law, speculative_commit
from .relaxation import annealed_factors, at_drafts, nearest_codes, neighbour_mass, relaxed_accept
from .speculative_jacobi import SJDScheduler
from .verification import residual_sample

RULES = ("multiplicative", "additive", "annealed")
RESIDUALS = ("vanilla", "release")


class LanternScheduler(SJDScheduler):
    """A draft is accepted with the probability of its latent neighbours added to its own, up to a bound.

    Over one token the total variation from the target is the gain in acceptance, whatever the rule, as long as the
    residual is the vanilla one.

    Args:
        window: drafts verified per pass, at least 1.
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
        window: int = 16,
        initialise: str = "law-above",
        rule: str = "multiplicative",
        relaxation: float = 2.0,
        neighbours: int = 10,
        decay: float = 0.7,
        residual: str = "vanilla",
    ):
        check_window(window)
        check_choice("initialise", initialise, INITIALISERS)
        check_choice("rule", rule, RULES)
        check_number("relaxation", relaxation, 0 if rule == "additive" else 1)
        check_count("neighbours", neighbours)
        check_number("decay", decay, 0)
        check_choice("residual", residual, RESIDUALS)
        if rule == "additive" and relaxation > 1:
            raise ValueError(f"relaxation bounds a probability under rule='additive': at most 1, got {relaxation!r}.")
        if rule == "annealed" and residual == "release":
            raise ValueError("residual='release' is made of neighbours, which rule='annealed' has not.")
        self._codebook: torch.Tensor | None = None
        self._table: torch.Tensor | None = None  # [V, neighbours + 1] int64

    @property
    def needs_codebook(self) -> bool:
        return self.config.rule != "annealed"

    def prepare_codebook(self, vectors: torch.Tensor) -> None:
        known = self._codebook
        if known is None or known.device != vectors.device or not torch.equal(known, vectors):
            self._codebook = vectors
            self._table = nearest_codes(vectors, self.config.neighbours + 1)  # the release's residual takes one more

    def accept(self, slots: Slots) -> torch.Tensor:
        uniforms = slots.noise.uniform(slots.positions[:, :-1], Purpose.ACCEPT, slots.state.passes)
        target = slots.target[:, :-1]
        mass = at_drafts(target, slots.drafts)
        if self.config.rule == "annealed":
            mass = mass * annealed_factors(
                slots.drafts.shape[1], self.config.relaxation, self.config.decay, mass.device
            )
        else:
            mass = mass + self._relief(target, slots.drafts)
        return relaxed_accept(mass, at_drafts(slots.draft_law, slots.drafts), uniforms)

    def commit(self, slots: Slots, accepted: torch.Tensor) -> torch.Tensor:
        if self.config.residual == "vanilla" or not slots.drafts.shape[1]:
            return speculative_commit(slots, accepted)
        target, law = slots.at(slots.target, accepted), front_law(slots, accepted)  # [B, 1, V]
        draft = slots.at(slots.drafts, accepted.clamp(max=slots.drafts.shape[1] - 1))  # [B, 1]
        relaxed = self._relief(target, draft) > 0  # [B, 1]
        without_neighbours = law.scatter(-1, self._table[draft.clamp(max=len(self._table) - 1)], 0.0)
        law = torch.where(relaxed[..., None], without_neighbours, law)
        return residual_sample(target, law, slots.at(slots.positions, accepted), slots.noise, slots.state.passes)

    def _relief(self, target: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
        """Probability that the neighbours of each draft lend it: `[B, W, V]`, `[B, W]` -> `[B, W]`."""
        bound = self.config.relaxation
        if self.config.rule == "multiplicative":
            bound = (bound - 1) * target.gather(-1, drafts[..., None])
        return neighbour_mass(target, drafts, self._table[:, : self.config.neighbours], bound)
