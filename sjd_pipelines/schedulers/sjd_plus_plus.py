"""SJD++: Speculative Jacobi Decoding that keeps the drafts it is confident of."""

import torch
from diffusers.configuration_utils import register_to_config

from .adaptive_window import check_window_or_auto
from .base import check_choice, check_number
from .drafting import INITIALISERS
from .raster_window import Slots
from .relaxation import confident
from .speculative_jacobi import SJDScheduler

CONFIDENCES = ("ratio", "probability")


class SJDPlusPlusScheduler(SJDScheduler):
    """SJD whose redrafts keep confident old drafts; `CoupledSJDScheduler` has the same aim and no bias.

    The paper's measure of confidence and its threshold are not public; both are settings here.

    Args:
        window: drafts verified per pass, at least 1, or "auto".
        initialise: as in `SJDScheduler`.
        confidence: `ratio` of the new probability of a draft to its old one, or the new `probability` itself.
        reuse_threshold: drafts of a higher confidence stay; `probability` above 1 is `SJDScheduler`.
    """

    label = "approximate"
    paper = "Teng et al. 2025, arXiv 2512.07503"

    @register_to_config
    def __init__(
        self,
        window: int | str = 16,
        initialise: str = "law-above",
        confidence: str = "ratio",
        reuse_threshold: float = 0.5,
    ):
        check_window_or_auto(window)
        check_choice("initialise", initialise, INITIALISERS)
        check_choice("confidence", confidence, CONFIDENCES)
        check_number("reuse_threshold", reuse_threshold, 0)

    def redraft(self, slots: Slots) -> torch.Tensor:
        tokens = super().redraft(slots)
        confidence, threshold = self.config.confidence, self.config.reuse_threshold
        reused = confident(slots.probability, slots.draft_probability, confidence, threshold)
        behind = torch.arange(reused.shape[1], device=reused.device) > slots.accepted[:, None]  # [B, W]
        tokens[:, :-1] = torch.where(reused & behind, slots.drafts, tokens[:, :-1])
        return tokens
