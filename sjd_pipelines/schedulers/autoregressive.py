"""Plain next-token decoding, the reference that every other scheduler is measured against."""

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import Card
from .raster_window import RasterWindowScheduler, Slots


class AutoregressiveScheduler(RasterWindowScheduler):
    """One token per forward pass: argmax(p / noise), the noise fixed per position."""

    label = "exact"
    paper = "ancestral sampling"
    card = Card(
        "Sequential",
        "One token per forward pass, the plain way. Slowest; what all other decoders are measured against.",
        "Use it as the yardstick, or where a model must be reproduced as published.",
    )
    shares_noise = True
    stores_laws = False

    @register_to_config
    def __init__(self):
        pass

    @property
    def window(self) -> int:
        return 0

    def accept(self, slots: Slots) -> torch.Tensor:
        return slots.drafts.bool()  # [B, 0]

    def redraft(self, slots: Slots) -> torch.Tensor:
        return slots.seeded_choice
