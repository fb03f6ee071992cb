"""Pipelines: one file per model family, all with the same life cycle."""

from .autoregressive import (
    SJDAutoRegressivePipeline,
)
from .chameleon import (
    SJDChameleonPipeline,
)
from .emu3 import (
    SJDEmu3Pipeline,
)
from .janus import (
    SJDJanusPipeline,
)
from .llamagen import (
    SJDLlamaGenPipeline,
)
from .output import (
    SJDPipelineOutput,
    TarFlowPipelineOutput,
)
from .prompts import (
    EncodedPrompt,
)
from .tarflow import (
    TarFlowPipeline,
)

__all__ = [
    "EncodedPrompt",
    "SJDAutoRegressivePipeline",
    "SJDChameleonPipeline",
    "SJDEmu3Pipeline",
    "SJDJanusPipeline",
    "SJDLlamaGenPipeline",
    "SJDPipelineOutput",
    "TarFlowPipeline",
    "TarFlowPipelineOutput",
]
