"""Parallel (Jacobi-type) decoding for autoregressive image models, in diffusers style."""

from . import companions, flows, schedulers
from .exports import lazy
from .pipelines.families import FAMILIES
from .version import __version__

# Saved folders name this package, not its modules, as the home of schedulers and networks: files may move. diffusers
# looks up in it the class, and the base class that knows how to load it.
SOURCES = {
    "diffusers": ("ModelMixin", "SchedulerMixin"),
    ".decoding": (
        "CanvasCache",
        "DecodingState",
        "DecodingStatistics",
        "ImageTokenLayout",
        "PositionNoise",
        "Purpose",
        "Query",
    ),
    ".companions": tuple(name for name in companions.__all__ if name != "COMPANIONS"),
    ".flows": ("FLOW_SOLVERS", "Calibration", "FlowOverflowError", "FlowStatistics", *flows.SOLVER_NAMES),
    ".jobs": ("draw_again",),
    ".models": ("LlamaGenTransformer", "TarFlowTransformer2DModel"),
    ".pipelines": (
        "SJDAutoRegressivePipeline",
        *(family.pipeline for family in FAMILIES),
        "SJDPipelineOutput",
        "TarFlowPipelineOutput",
    ),
    ".schedulers": schedulers.__all__,
}

__all__, __getattr__, __dir__ = lazy(__name__, SOURCES)
__all__ += ["__version__"]
