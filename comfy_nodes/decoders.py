"""One node per decoding scheduler, each with that scheduler's settings alone; made from the cards."""

import inspect
from types import NoneType
from typing import Any, ClassVar, get_args, get_type_hints

from comfy_api.latest import io

from sjd_pipelines import SCHEDULERS

from .decoder_cards import CARDS, LABELS, NOT_SET, Card, Setting
from .types import Decoder, DecoderType


class DecoderNode(io.ComfyNode):
    """Base of the decoder nodes."""

    scheduler: ClassVar[str]

    @classmethod
    def define_schema(cls) -> io.Schema:
        scheduler, card = SCHEDULERS[cls.scheduler], CARDS[cls.scheduler]
        return io.Schema(
            node_id=card.node_id,
            display_name=card.display_name,
            category="SJD/decoders",
            description=f"{card.description} {LABELS[scheduler.label]} ({scheduler.paper})",
            inputs=_inputs(cls.scheduler, card),
            outputs=[
                DecoderType.Output(
                    "DECODER",
                    display_name="decoder",
                    tooltip=f"For the decoder input of SJD Sampler. {LABELS[scheduler.label]}",
                )
            ],
        )

    @classmethod
    def execute(cls, **settings: Any) -> io.NodeOutput:
        optional = [name for name, kinds in _kinds(cls.scheduler).items() if NoneType in kinds]
        settings |= {name: None for name in optional if settings[name] == NOT_SET}
        decoder = Decoder(cls.scheduler, settings)
        decoder.make()  # a bad value is told here, on the node that has it
        return io.NodeOutput(decoder)


def _inputs(scheduler: str, card: Card) -> list[io.Input]:
    parameters, kinds = inspect.signature(SCHEDULERS[scheduler]).parameters, _kinds(scheduler)
    return [_input(name, kinds[name], one.default, card.settings[name]) for name, one in parameters.items()]


def _input(name: str, kinds: tuple[type, ...], default: Any, setting: Setting) -> io.Input:
    if setting.options:
        return io.Combo.Input(name, options=list(setting.options), default=default, tooltip=setting.tooltip)
    if bool in kinds:
        return io.Boolean.Input(name, default=default, tooltip=setting.tooltip)
    number = float if float in kinds else int
    make = io.Float.Input if number is float else io.Int.Input
    return make(
        name,
        default=number(NOT_SET if default is None else default),
        min=number(setting.least),
        max=number(setting.most),
        step=number(setting.step),
        tooltip=setting.tooltip,
    )


def _kinds(scheduler: str) -> dict[str, tuple[type, ...]]:
    """Setting -> the types it takes."""
    hints = get_type_hints(SCHEDULERS[scheduler].__init__)
    return {name: get_args(hint) or (hint,) for name, hint in hints.items()}


DECODER_NODES: list[type[io.ComfyNode]] = [
    type(card.node_id, (DecoderNode,), {"scheduler": name, "__module__": __name__, "__doc__": card.description})
    for name, card in CARDS.items()
]
