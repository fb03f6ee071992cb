"""Grouped speculative decoding: a draft passes for any token that the target finds about as likely."""

from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from .declaration import Bound, Card, Setting, WindowOrAuto
from .drafting import Initialise
from .raster_window import Slots
from .relaxation import groups
from .speculative_jacobi import SJDScheduler
from .verification import speculative_accept

GroupSize = Annotated[
    int,
    Setting(
        "How many similar tokens may stand in for each other. Larger is faster and less faithful; 1 is lossless.",
        least=1,
        most=1024,
    ),
]
Gap = Annotated[
    float,
    Setting(
        "How different in probability members of a group may be. Larger is faster and less faithful.",
        most=1,
        step=0.01,
    ),
]
Distance = Annotated[
    float | None,
    Setting(
        "How different members of a group may look, where 1 is the usual distance of two tokens. Larger is faster and "
        "less faithful; -1 looks at probabilities only.",
        most=100,
    ),
]


class GroupedSJDScheduler(SJDScheduler):
    """GSD (So et al. 2025, arXiv 2508.07747) on Jacobi drafts: masses of a group are compared, not of a token.

    Groups are made anew for every draft from the ranking by target probability. A rejected draft is replaced from the
    residual of single tokens, as in the paper. Unlike there, groups keep to the tokens that top-k and top-p leave:
    behind a sharp nucleus the paper's rule accepts what truncation was set to avoid.

    Args:
        window: drafts verified per pass, or "auto".
        initialise: as in `SJDScheduler`.
        group_size: tokens per group at most; 1 is `SJDScheduler`.
        gap: members differ from the draft by less than this probability.
        distance: members are nearer to the draft than this, in units of the codebook's root mean square distance of
            two entries; None looks at probabilities only.
    """

    label = "approximate"
    paper = "So et al. 2025, arXiv 2508.07747"
    card = Card(
        "Grouped (GSD)",
        "Accepts a guess for any token that looks and ranks alike. Fewer passes on models with many similar tokens.",
        "For models with large codebooks, where many tokens look alike. Turn gap up slowly and watch fine detail.",
    )
    bounds = (Bound("GSD", "gap", (0.0, 0.15, 0.4, 1.0)),)

    @register_to_config
    def __init__(
        self,
        window: WindowOrAuto = 16,
        initialise: Initialise = "law-above",
        group_size: GroupSize = 10,
        gap: Gap = 0.15,
        distance: Distance = 1.0,
    ):
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
