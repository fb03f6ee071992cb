"""Grouped speculative decoding: a draft passes for any token that the target finds about as likely."""

from typing import Annotated

from diffusers.configuration_utils import register_to_config

from ..declaration import Card, Setting
from .declaration import Bound, WindowOrAuto
from .drafting import Initialise
from .rules.grouped import Grouped
from .speculative_jacobi import SJDScheduler

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
KeepTruncation = Annotated[
    bool,
    Setting(
        "Groups keep to the tokens that top-k and top-p leave. Off is the rule as published, which accepts what these "
        "were set to avoid: a little faster, rougher detail."
    ),
]


class GroupedSJDScheduler(SJDScheduler):
    """GSD (So et al. 2025, arXiv 2508.07747) on Jacobi drafts: masses of a group are compared, not of a token.

    Groups are made anew for every draft from the ranking by target probability. A rejected draft is replaced from the
    residual of single tokens, as in the paper. Unlike there, groups by default keep to the tokens that top-k and top-p
    leave: with a sharp nucleus the paper's rule accepts what truncation was set to avoid. Distances are measured in
    units of the codebook, where the release has one bound for one model.

    Args:
        window: drafts verified per pass, or "auto".
        initialise: as in `SJDScheduler`.
        group_size: tokens per group at most; 1 is `SJDScheduler`.
        gap: members differ from the draft by less than this probability.
        distance: members are nearer to the draft than this, in units of the codebook's root mean square distance of
            two entries; None looks at probabilities only.
        keep_truncation: False is the rule as published.
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
        keep_truncation: KeepTruncation = True,
    ):
        own = self.config
        self.acceptance = Grouped(own.group_size, own.gap, own.distance, own.keep_truncation)
