"""Pipelines: one file per model family, all with the same life cycle."""

from ..exports import lazy

SOURCES = {
    ".autoregressive": ("SJDAutoRegressivePipeline",),
    ".chameleon": ("SJDChameleonPipeline",),
    ".emu3": ("SJDEmu3Pipeline",),
    ".janus": ("SJDJanusPipeline",),
    ".llamagen": ("SJDLlamaGenPipeline",),
    ".output": ("SJDPipelineOutput",),
    ".prompts": ("EncodedPrompt",),
}

__all__, __getattr__, __dir__ = lazy(__name__, SOURCES)
