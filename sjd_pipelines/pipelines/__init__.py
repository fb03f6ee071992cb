"""Pipelines: one file per model family, all with the same life cycle."""

from .autoregressive import EncodedPrompt, SJDAutoRegressivePipeline
from .janus import SJDJanusPipeline
from .llamagen import SJDLlamaGenPipeline
from .output import SJDPipelineOutput

__all__ = [
    "EncodedPrompt",
    "SJDAutoRegressivePipeline",
    "SJDJanusPipeline",
    "SJDLlamaGenPipeline",
    "SJDPipelineOutput",
]
