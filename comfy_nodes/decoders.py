"""One node per decoding scheduler, each with that scheduler's settings alone; made from what schedulers declare."""

from typing import Any, ClassVar

from comfy_api.latest import io

from sjd_pipelines import SCHEDULERS, DecodingScheduler

from .labels import promise
from .settings import inputs_of, values_of
from .types import Decoder, DecoderType

# Ids are a file format; these are older than the rule of `node_id`.
OLD_IDS = {"AutoregressiveScheduler": "SJDDecoderSequential", "SJDScheduler": "SJDDecoderSpeculative"}


class DecoderNode(io.ComfyNode):
    """Base of the decoder nodes."""

    scheduler: ClassVar[str]

    @classmethod
    def define_schema(cls) -> io.Schema:
        scheduler = SCHEDULERS[cls.scheduler]
        card, words = scheduler.card, promise(scheduler)
        return io.Schema(
            node_id=node_id(scheduler),
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


def node_id(scheduler: type[DecodingScheduler]) -> str:
    """`SJDDecoder` and the name of the class without what all have in common."""
    name = scheduler.__name__
    return OLD_IDS.get(name, f"SJDDecoder{name.replace('SJD', '').removesuffix('Scheduler')}")


DECODER_NODES: list[type[io.ComfyNode]] = [
    type(
        node_id(scheduler),
        (DecoderNode,),
        {"scheduler": name, "__module__": __name__, "__doc__": scheduler.card.summary},
    )
    for name, scheduler in SCHEDULERS.items()
]
