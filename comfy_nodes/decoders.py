"""One node per decoding scheduler, each with that scheduler's settings alone; made from what schedulers declare."""

from typing import Any, ClassVar

from comfy_api.latest import io

from sjd_pipelines import SCHEDULERS, DecodingScheduler
from sjd_pipelines.schedulers.declaration import Setting, settings_of

from .labels import promise
from .types import Decoder, DecoderType

# Stands for None in the number fields of settings that may be left out; no such setting takes it as a value.
NOT_SET = -1
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
            inputs=[_input(name, setting) for name, setting in settings_of(scheduler).items()],
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
        optional = [name for name, one in settings_of(SCHEDULERS[cls.scheduler]).items() if one.takes(None)]
        settings |= {name: None for name in optional if settings[name] == NOT_SET}
        decoder = Decoder(cls.scheduler, settings)
        decoder.make()  # a bad value is told here, on the node that has it
        return io.NodeOutput(decoder)


def node_id(scheduler: type[DecodingScheduler]) -> str:
    """`SJDDecoder` and the name of the class without what all have in common."""
    name = scheduler.__name__
    return OLD_IDS.get(name, f"SJDDecoder{name.replace('SJD', '').removesuffix('Scheduler')}")


def _input(name: str, setting: Setting) -> io.Input:
    if setting.is_number:
        number = float if float in setting.types else int
        make = io.Float.Input if number is float else io.Int.Input
        return make(
            name,
            default=number(NOT_SET if setting.default is None else setting.default),
            min=number(NOT_SET if setting.takes(None) else setting.least),
            max=number(setting.most),
            step=setting.step if number is float else 1,
            tooltip=setting.words,
        )
    if setting.choices:
        return io.Combo.Input(name, options=list(setting.choices), default=setting.default, tooltip=setting.words)
    return io.Boolean.Input(name, default=setting.default, tooltip=setting.words)


DECODER_NODES: list[type[io.ComfyNode]] = [
    type(
        node_id(scheduler),
        (DecoderNode,),
        {"scheduler": name, "__module__": __name__, "__doc__": scheduler.card.summary},
    )
    for name, scheduler in SCHEDULERS.items()
]
