"""SJD++: Speculative Jacobi Decoding that keeps the drafts it is confident of."""

from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import Card, Setting
from .declaration import Bound, WindowOrAuto
from .drafting import Initialise
from .raster_window import Slots
from .speculative_jacobi import SJDScheduler

Confidence = Annotated[
    str,
    Setting(
        "What counts as confident: how the guess's probability compares with before (ratio), or the probability "
        "itself. No cost.",
        choices=("ratio", "probability"),
    ),
]
Threshold = Annotated[
    float,
    Setting(
        "Guesses above this confidence stay. Lower keeps more: fewer passes, further from the model's own pictures. "
        "With probability, above 1 keeps none and is lossless.",
        most=100,
    ),
]


class SJDPlusPlusScheduler(SJDScheduler):
    """SJD whose redrafts keep confident old drafts; `CoupledSJDScheduler` has the same aim and no bias.

    The paper's measure of confidence and its threshold are not public; both are settings here.

    Args:
        window: drafts verified per pass, or "auto".
        initialise: as in `SJDScheduler`.
        confidence: `ratio` of the new probability of a draft to its old one, or the new `probability` itself.
        reuse_threshold: drafts of a higher confidence stay; `probability` above 1 is `SJDScheduler`.
    """

    label = "approximate"
    paper = "Teng et al. 2025, arXiv 2512.07503"
    card = Card(
        "SJD++",
        "Speculative Jacobi that keeps guesses it is confident of instead of drawing them again. Fewer passes; the "
        "picture gets slightly safer.",
        "Compare with Coupled Speculative Jacobi, which has the same aim and is lossless.",
    )
    bounds = (Bound("SJD++", "reuse_threshold", (2.0, 1.0, 0.5, 0.25)),)

    @register_to_config
    def __init__(
        self,
        window: WindowOrAuto = 16,
        initialise: Initialise = "law-above",
        confidence: Confidence = "ratio",
        reuse_threshold: Threshold = 0.5,
    ):
        pass

    def redraft(self, slots: Slots) -> torch.Tensor:
        tokens = super().redraft(slots)
        confidence, threshold = self.config.confidence, self.config.reuse_threshold
        reused = confident(slots.drafted.probability, slots.drafted.draft_probability, confidence, threshold)
        after = torch.arange(reused.shape[1], device=reused.device) > slots.accepted[:, None]  # [B, W]
        tokens[:, :-1] = torch.where(reused & after, slots.drafts, tokens[:, :-1])
        return tokens


def confident(
    probability: torch.Tensor, draft_probability: torch.Tensor, confidence: str, threshold: float
) -> torch.Tensor:
    """Drafts worth keeping though not yet verified: p/q (`ratio`) or p (`probability`) above a threshold.

    SJD++ (Teng et al. 2025, arXiv 2512.07503) reuses confident drafts; it looks at the sampled token, so what is kept
    no longer has the law stored with it.

    Args:
        probability: `[B, W]` float32, of each draft under the target.
        draft_probability: `[B, W]` float32, of each draft under the law it was sampled from.
        confidence: `ratio` or `probability`.
        threshold: drafts above it stay.

    Returns:
        `[B, W]` bool.
    """
    if confidence == "probability":
        return probability > threshold
    return probability > threshold * draft_probability
