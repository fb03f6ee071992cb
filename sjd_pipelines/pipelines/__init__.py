"""Pipelines: one file per model family, all with the same life cycle."""

from ..exports import lazy
from .families import FAMILIES

SOURCES = {
    ".autoregressive": ("SJDAutoRegressivePipeline",),
    **{f".{family.module}": (family.pipeline,) for family in FAMILIES},
    ".output": ("SJDPipelineOutput", "TarFlowPipelineOutput"),
    ".prompts": ("EncodedPrompt",),
}

__all__, __getattr__, __dir__ = lazy(__name__, SOURCES)
