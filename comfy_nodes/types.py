"""What travels along the wires of these nodes. Values are shared between runs and never changed."""

from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io

from sjd_pipelines import SCHEDULERS, DecodingScheduler, DecodingStatistics, ImageTokenLayout

ModelType = io.Custom("SJD_MODEL")
DecoderType = io.Custom("SJD_DECODER")
TokensType = io.Custom("SJD_TOKENS")
ReportType = io.Custom("SJD_REPORT")


@dataclass(frozen=True)
class Decoder:
    """A scheduler by name and settings; every run makes its own object of it, so that nothing is carried over."""

    name: str
    settings: dict[str, Any]

    def make(self) -> DecodingScheduler:
        """Raises `ValueError` for a setting the scheduler does not take."""
        return SCHEDULERS[self.name](**self.settings)


@dataclass(frozen=True)
class Codebook:
    """What token ids mean: ids of one codebook are noise to another."""

    name: str
    sample: torch.Tensor  # [K, E] float32: its first vectors

    def same_as(self, other: "Codebook") -> bool:
        # The same weights differ in the last digits between number formats.
        return self.name == other.name and torch.allclose(self.sample, other.sample, rtol=0.02, atol=0.02)


@dataclass(frozen=True)
class Tokens:
    """A batch of pictures as the model drew them, before they become pixels.

    Attributes:
        ids: `[B, rows * columns]` int64 codebook ids, on the CPU.
        layout: the token grid.
        height: of the picture in pixels.
        width: of the picture in pixels.
        codebook: of the model that drew them.
    """

    ids: torch.Tensor
    layout: ImageTokenLayout
    height: int
    width: int
    codebook: Codebook


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        statistics: as the pipeline returns them.
        decoder: registered name of the scheduler, or its class name.
        settings: of the scheduler.
        seeds: of each picture, as the sampler's seed draws it again alone.
        tokens: per picture.
        columns: codebook tokens per row.
        height: of the picture in pixels.
        width: of the picture in pixels.
        remarks: what was lost of the prompts, a line each.
    """

    statistics: DecodingStatistics
    decoder: str
    settings: dict[str, Any]
    seeds: list[int]
    tokens: int
    columns: int
    height: int
    width: int
    remarks: list[str]

    @property
    def passes(self) -> float:
        """Forward passes per picture, on average over the batch."""
        passes = self.statistics.forward_passes
        return sum(passes) / len(passes)

    @property
    def seconds(self) -> float:
        """Of the whole batch, from prompt to tokens."""
        return self.statistics.seconds["encode"] + self.statistics.seconds["decode"]
