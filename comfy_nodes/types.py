"""What travels along the wires of these nodes. Values are shared between runs and never changed."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io

from sjd_pipelines import (
    FLOW_SOLVERS,
    SCHEDULERS,
    DecodingScheduler,
    DecodingStatistics,
    FlowSolver,
    ImageTokenLayout,
)

ModelType = io.Custom("SJD_MODEL")
DecoderType = io.Custom("SJD_DECODER")
TokensType = io.Custom("SJD_TOKENS")
ReportType = io.Custom("SJD_REPORT")
FlowType = io.Custom("SJD_FLOW")
SolverType = io.Custom("SJD_SOLVER")
PatchesType = io.Custom("SJD_PATCHES")


@dataclass(frozen=True)
class Decoder:
    """A scheduler by name and settings; every run makes its own object of it, so that nothing is carried over.

    Attributes:
        name: as registered.
        settings: of its constructor.
        title: what an artist chose; None is its name.
        others: what takes its place where it can't decode a model, in turn.
    """

    name: str
    settings: dict[str, Any]
    title: str | None = None
    others: tuple["Decoder", ...] = ()

    def make(self) -> DecodingScheduler:
        """Raises `ValueError` for a setting the scheduler does not take."""
        return SCHEDULERS[self.name](**self.settings)

    def make_for(self, layout: ImageTokenLayout, companions: Collection[str]) -> DecodingScheduler:
        """The first that can decode a model with this layout and these companions; else the first of all."""
        made = [one.make() for one in (self, *self.others)]
        return next((one for one in made if one.unsuited(layout, companions) is None), made[0])


@dataclass(frozen=True)
class Origin:
    """Which weights tokens or patches are of: to others they are noise.

    Attributes:
        name: class and sizes.
        sample: float32, some of the weights; of a codebook `[K, E]`, its first vectors.
    """

    name: str
    sample: torch.Tensor

    def same_as(self, other: "Origin") -> bool:
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
    codebook: Origin


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        statistics: as the pipeline returns them.
        decoder: registered name of the scheduler, or its class name.
        title: what the artist chose to get it, or the same.
        settings: of the scheduler.
        seeds: of each picture, as the sampler's seed draws it again alone.
        tokens: per picture.
        columns: codebook tokens per row.
        height: of the picture in pixels.
        width: of the picture in pixels.
        remarks: what was lost of the prompts, a line each.
        prompt: as the model got it.
        negative_prompt: the same; empty for the model's own.
        sampling: what tokens were drawn with, by the sampler's names.
    """

    statistics: DecodingStatistics
    decoder: str
    title: str
    settings: dict[str, Any]
    seeds: list[int]
    tokens: int
    columns: int
    height: int
    width: int
    remarks: list[str]
    prompt: str
    negative_prompt: str
    sampling: dict[str, float]

    @property
    def passes(self) -> float:
        """Forward passes per picture, on average over the batch."""
        passes = self.statistics.forward_passes
        return sum(passes) / len(passes)

    @property
    def seconds(self) -> float:
        """Of the whole batch, from prompt to tokens."""
        return self.statistics.seconds["encode"] + self.statistics.seconds["decode"]


@dataclass(frozen=True)
class Solver:
    """A flow's solver by name and settings; every run makes its own object of it.

    Attributes:
        name: as registered.
        settings: of its constructor.
    """

    name: str
    settings: dict[str, Any]

    def make(self) -> FlowSolver:
        """Raises `ValueError` for a setting the solver does not take."""
        return FLOW_SOLVERS[self.name](**self.settings)


@dataclass(frozen=True)
class Patches:
    """A batch of pictures as a flow drew them, the noise of its training still on them.

    Attributes:
        values: `[B, T, D]` float32, on the CPU.
        labels: class of each picture, -1 for none.
        origin: the flow that drew them.
    """

    values: torch.Tensor
    labels: list[int]
    origin: Origin
