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
from .models import LlamaGenTransformer
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
    CoupledSJDScheduler,
    DecodingScheduler,
    GroupedSJDScheduler,
    JacobiScheduler,
    LanternScheduler,
    ParallelJacobiScheduler,
    RasterWindowScheduler,
    RowParallelScheduler,
    SeededJacobiScheduler,
    SJDPlusPlusScheduler,
    SJDScheduler,
    TreeJacobiScheduler,
    ZipARScheduler,
)
from .version import __version__

# diffusers records a component's module in model_index.json, imports nothing on its own, and looks its base class up
# as an attribute of that module. Recording the package itself keeps saved folders loadable when files move.
for _component in (*SCHEDULERS.values(), LlamaGenTransformer):
    _component.__module__ = __name__
del _component

__all__ = [
    "SCHEDULERS",
    "AutoregressiveScheduler",
    "CanvasCache",
    "CoupledSJDScheduler",
    "DecodingScheduler",
    "DecodingState",
    "DecodingStatistics",
    "GroupedSJDScheduler",
    "ImageTokenLayout",
    "JacobiScheduler",
    "LanternScheduler",
    "LlamaGenTransformer",
    "ModelMixin",
    "ParallelJacobiScheduler",
    "PositionNoise",
    "Purpose",
    "Query",
    "RasterWindowScheduler",
    "RowParallelScheduler",
    "SJDAutoRegressivePipeline",
    "SJDChameleonPipeline",
    "SJDEmu3Pipeline",
    "SJDJanusPipeline",
    "SJDLlamaGenPipeline",
    "SJDPipelineOutput",
    "SJDPlusPlusScheduler",
    "SJDScheduler",
    "SchedulerMixin",
    "TreeJacobiScheduler",
    "SeededJacobiScheduler",
    "ZipARScheduler",
    "__version__",
]
