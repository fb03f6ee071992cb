"""The one decoder node that an artist needs."""

from dataclasses import replace

from comfy_api.latest import io

from sjd_pipelines.pipelines.presets import OWN_WINDOW, PRESETS, WINDOWS, candidates

from .schema import schema
from .types import Decoder, DecoderType


class SJDDecoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDDecoder",
            display_name="SJD Decoder",
            category="SJD/sampling",
            description="How the sampler guesses tokens ahead, by what you get. The same picture: the very one that "
            "drawing one token at a time gives for the same seed, in fewer passes. Which way of guessing that is "
            "depends on the model; the report names it. The nodes under SJD/decoders have every setting.",
            search_aliases=[
                "fast", "speed", "faster", "lossless", "exact", "speculative decoding", "jacobi", "autoregressive",
                "parallel decoding", "window", "scheduler",
            ],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default=next(iter(PRESETS)),
                    tooltip="What you get. fast: the least time. fewest passes: the least work for a model that takes "
                    "long per pass. sequential: the plain way, to compare with. another picture, just as good: from "
                    "the same distribution. slightly different: look-alike tokens may stand for one another.",
                ),
                io.Combo.Input(
                    "window",
                    options=list(WINDOWS),
                    default=OWN_WINDOW,
                    tooltip="Tokens guessed ahead per pass. auto measures what is fastest on this device, where "
                    "the preset can. The picture stays the same at any window with the presets that promise it.",
                ),
            ],
            outputs=[
                DecoderType.Output(
                    "DECODER", display_name="decoder", tooltip="For the decoder input of SJD Sampler."
                )
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, preset: str, window: str) -> io.NodeOutput:
        first, *others = (Decoder(name, settings, title=preset) for name, settings in candidates(preset, window))
        return io.NodeOutput(replace(first, others=tuple(others)))
