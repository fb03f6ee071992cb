"""Parallel (Jacobi-type) decoding for autoregressive image models, in diffusers style."""

from diffusers import ModelMixin, SchedulerMixin

from .decoding import (
    CanvasCache,
    DecodingState,
    DecodingStatistics,
    ImageTokenLayout,
    PositionNoise,
    Purpose,
    Query,
)
from .models import DraftReviser, EagleDrafter, LlamaGenTransformer
from .pipelines import (
    SJDAutoRegressivePipeline,
    SJDChameleonPipeline,
    SJDEmu3Pipeline,
    SJDJanusPipeline,
    SJDLlamaGenPipeline,
    SJDPipelineOutput,
)
from .schedulers import (
    SCHEDULERS,
    AutoregressiveScheduler,
    CorrectedJacobiScheduler,
    CoupledSJDScheduler,
    DecodingScheduler,
    EagleScheduler,
    GroupedSJDScheduler,
    JacobiScheduler,
    LanternEagleScheduler,
    LanternScheduler,
    ParallelJacobiScheduler,
    RasterWindowScheduler,
    RevisedJacobiScheduler,
    RowParallelScheduler,
    SeededEagleScheduler,
    SeededJacobiScheduler,
    SJDPACScheduler,
    SJDPlusPlusScheduler,
    SJDScheduler,
    TreeJacobiScheduler,
    ZipARScheduler,
)
from .version import __version__

# diffusers records a component's module in model_index.json, imports nothing on its own, and looks its base class up
# as an attribute of that module. Recording the package itself keeps saved folders loadable when files move.
for _component in (*SCHEDULERS.values(), DraftReviser, EagleDrafter, LlamaGenTransformer):
    _component.__module__ = __name__
del _component

__all__ = [
    "SCHEDULERS",
    "AutoregressiveScheduler",
    "CanvasCache",
    "CorrectedJacobiScheduler",
    "CoupledSJDScheduler",
    "DecodingScheduler",
    "DecodingState",
    "DecodingStatistics",
    "DraftReviser",
    "EagleDrafter",
    "EagleScheduler",
    "GroupedSJDScheduler",
    "ImageTokenLayout",
    "JacobiScheduler",
    "LanternEagleScheduler",
    "LanternScheduler",
    "LlamaGenTransformer",
    "ModelMixin",
    "ParallelJacobiScheduler",
    "PositionNoise",
    "Purpose",
    "Query",
    "RasterWindowScheduler",
    "RevisedJacobiScheduler",
    "RowParallelScheduler",
    "SJDAutoRegressivePipeline",
    "SJDChameleonPipeline",
    "SJDEmu3Pipeline",
    "SJDJanusPipeline",
    "SJDLlamaGenPipeline",
    "SJDPACScheduler",
    "SJDPipelineOutput",
    "SJDPlusPlusScheduler",
    "SJDScheduler",
    "SchedulerMixin",
    "SeededEagleScheduler",
    "SeededJacobiScheduler",
    "TreeJacobiScheduler",
    "ZipARScheduler",
    "__version__",
]
