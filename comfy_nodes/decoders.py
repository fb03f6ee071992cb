"""One node per decoding scheduler, each with that scheduler's settings alone; made from what schedulers declare."""

from typing import Any, ClassVar

from comfy_api.latest import io

from sjd_pipelines import SCHEDULERS
from sjd_pipelines.pipelines.graphs import decoder_id, values_of

from .labels import promise
from .settings import inputs_of
from .types import Decoder, DecoderType


class DecoderNode(io.ComfyNode):
    """Base of the decoder nodes."""

    scheduler: ClassVar[str]

    @classmethod
    def define_schema(cls) -> io.Schema:
        scheduler = SCHEDULERS[cls.scheduler]
        card, words = scheduler.card, promise(scheduler)
        return io.Schema(
            node_id=decoder_id(scheduler),
            display_name=f"SJD Decoder: {card.title}",
            category="SJD/decoders",
            description=f"{card.summary} {words} ({scheduler.paper})",
            inputs=inputs_of(scheduler),
            outputs=[
                DecoderType.Output(
                    "DECODER",
                    display_name="decoder",
                    tooltip=f"For the decoder input of SJD Sampler. {words}",
                )
            ],
        )

    @classmethod
    def execute(cls, **settings: Any) -> io.NodeOutput:
        decoder = Decoder(cls.scheduler, values_of(SCHEDULERS[cls.scheduler], settings))
        decoder.make()  # a bad value is told here, on the node that has it
        return io.NodeOutput(decoder)


DECODER_NODES: list[type[io.ComfyNode]] = [
    type(
        decoder_id(scheduler),
        (DecoderNode,),
        {"scheduler": name, "__module__": __name__, "__doc__": scheduler.card.summary},
    )
    for name, scheduler in SCHEDULERS.items()
]
