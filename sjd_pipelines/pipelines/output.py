"""What a pipeline call returns."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers.utils import BaseOutput

from ..decoding.statistics import DecodingStatistics
from ..flows.state import FlowStatistics


@dataclass
class SJDPipelineOutput(BaseOutput):
    """Pictures, the tokens they were decoded from, and what the run cost.

    Attributes:
        images: list of PIL images, `[B, H, W, 3]` array (`np`), `[B, 3, H, W]` tensor (`pt`), or tokens (`latent`).
        tokens: `[B, rows * columns]` int64 codebook ids.
        statistics: passes, acceptance map and seconds.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    tokens: torch.Tensor
    statistics: DecodingStatistics


@dataclass
class TarFlowPipelineOutput(BaseOutput):
    """Pictures, and what the run cost.

    Attributes:
        images: list of PIL images, `[B, H, W, 3]` array (`np`), `[B, 3, H, W]` tensor (`pt`), or `[B, T, D]` patches
            in raster order with the training noise still on them (`latent`).
        statistics: passes, token-passes and seconds.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    statistics: FlowStatistics
