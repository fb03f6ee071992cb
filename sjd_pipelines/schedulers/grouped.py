"""Grouped speculative decoding: a draft passes for any token that the target finds about as likely."""

import torch
from diffusers.configuration_utils import register_to_config

from .adaptive_window import check_window_or_auto
from .base import check_choice, check_count, check_number
from .drafting import INITIALISERS
from .raster_window import Slots
from .relaxation import groups
from .speculative_jacobi import SJDScheduler
from .verification import speculative_accept


class GroupedSJDScheduler(SJDScheduler):
    """GSD (So et al. 2025, arXiv 2508.07747) on Jacobi drafts: masses of a group are compared, not of a token.

    Groups are made anew for every draft from the ranking by target probability. A rejected draft is replaced from the
    residual of single tokens, as in the paper. Unlike there, groups keep to the tokens that top-k and top-p leave:
    behind a sharp nucleus the paper's rule accepts what truncation was set to avoid.

    Args:
        window: drafts verified per pass, at least 1, or "auto".
        initialise: as in `SJDScheduler`.
        group_size: tokens per group at most; 1 is `SJDScheduler`.
        gap: members differ from the draft by less than this probability.
        distance: members are nearer to the draft than this, in units of the codebook's root mean square distance of
            two entries; None looks at probabilities only.
    """

    label = "approximate"
    paper = "So et al. 2025, arXiv 2508.07747"

    @register_to_config
    def __init__(
        self,
        window: int | str = 16,
        initialise: str = "law-above",
        group_size: int = 10,
        gap: float = 0.15,
        distance: float | None = 1.0,
    ):
        check_window_or_auto(window)
        check_choice("initialise", initialise, INITIALISERS)
        check_count("group_size", group_size)
        check_number("gap", gap, 0)
        if distance is not None:
            check_number("distance", distance, 0)
        self._vectors: torch.Tensor | None = None

    @property
    def needs_codebook(self) -> bool:
        return self.config.distance is not None

    def prepare_codebook(self, vectors: torch.Tensor) -> None:
        vectors = vectors.float()
        # Codebooks differ in scale: over all pairs of entries the mean of |a - b|^2 is twice the variance.
        self._vectors = vectors / (2 * vectors.var(0).sum()).sqrt()

    def accept(self, slots: Slots) -> torch.Tensor:
        tokens, member = groups(
            slots.target[:, :-1],
            slots.drafts,
            self.config.group_size,
            self.config.gap,
            self._vectors if self.needs_codebook else None,
            self.config.distance or 0.0,
        )
        target = slots.target[:, :-1].gather(-1, tokens)
        drafted = slots.state.laws.at(slots.positions[:, :-1], tokens)
        # The draft comes first: one that is truncated itself has no group, and no mass to pass with.
        member = member & (target > 0) & (target[..., :1] > 0)
        return speculative_accept(
            *(mass.masked_fill(~member, 0.0).sum(-1) for mass in (target, drafted)), slots.uniforms
        )
