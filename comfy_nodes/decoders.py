"""One node per decoding scheduler, each with that scheduler's settings alone; made from what schedulers declare."""

from typing import Any, ClassVar

from comfy_api.latest import io

from sjd_pipelines import SCHEDULERS
from sjd_pipelines.pipelines.graphs import decoder_id, values_of

from .labels import promise
from .schema import schema
from .settings import inputs_of, refuse
from .types import Decoder, DecoderType


class DecoderNode(io.ComfyNode):
    """Base of the decoder nodes."""

    scheduler: ClassVar[str]

    @classmethod
    def define_schema(cls) -> io.Schema:
        scheduler = SCHEDULERS[cls.scheduler]
        card, words = scheduler.card, promise(scheduler)
        return schema(
            node_id=decoder_id(scheduler),
            display_name=f"SJD Decoder: {card.title}",
            category="SJD/decoders",
            description=f"{card.summary} {words} ({scheduler.paper})",
            search_aliases=[
                cls.scheduler,
                scheduler.__name__,
                scheduler.label,
                "speculative decoding",
                "autoregressive",
            ],
            is_experimental=True,
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
    def validate_inputs(cls, **settings: Any) -> bool:
        # Raised, not returned: ComfyUI repeats what is returned for every input.
        refuse(SCHEDULERS[cls.scheduler], settings)
        return True

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
