"""Parallel (Jacobi-type) decoding for autoregressive image models, in diffusers style."""

from diffusers import (
    ModelMixin,
    SchedulerMixin,
)

from .companions import (
    DraftReviser,
    EagleDrafter,
)
from .decoding import (
    CanvasCache,
    DecodingState,
    DecodingStatistics,
    ImageTokenLayout,
    PositionNoise,
    Purpose,
    Query,
)
from .models import (
    LlamaGenTransformer,
)
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

__all__ = [
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
    "SCHEDULERS",
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
