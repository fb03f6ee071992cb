"""Graphs of ComfyUI as its pictures hold them: the ids and inputs of this package's nodes, read without ComfyUI.

The nodes take their ids from here. A graph is what the server runs: number -> `class_type` and `inputs`, where a list
of a number and an index stands for the output of another node.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ..declaration import Setting, settings_of
from ..flows.registry import FLOW_SOLVERS
from ..ranges import shown
from ..schedulers import SCHEDULERS
from .presets import for_any_model

OWN = -1  # leaves a sampling option to the model
BY_NUMBERS, OWN_SIZE = "width and height", "the model's own"  # choices of a size; the others are shapes
WORD = 0  # stands in a number field for the one word that a setting takes as well; no such setting takes it
NOT_SET = -1  # stands for None in the number fields of settings that may be left out; no such setting takes it
MAX_SEED = 0xFFFFFFFFFFFFFFFF
EXACT_BITS = 53  # of an integer on a web page: a picture's seed must survive being typed there
MOST_PICTURES = 256  # of a batch
OPTIONS = {"guidance": "guidance_scale", "temperature": "temperature", "top_k": "top_k", "top_p": "top_p"}
# What graphs call a bundled model that they knew before it had a name.
LABELS = {"emoji-janus": "bundled emoji model (128 x 128)"}
# Ids are a file format; these are older than the rule of `decoder_id`.
_OLD_IDS = {"AutoregressiveScheduler": "SJDDecoderSequential", "SJDScheduler": "SJDDecoderSpeculative"}
_SAMPLERS = {"SJDSampler": ("model", "prompt", "decoder"), "SJDFlowSampler": ("flow", "class_name", "solver")}


@dataclass(frozen=True)
class GraphPicture:
    """One picture that a graph draws, in the words of a row of a job."""

    model: str
    dtype: str
    columns: Mapping[str, Any]


def decoder_id(scheduler: type) -> str:
    """`SJDDecoder` and the name of the class without what all have in common."""
    name = scheduler.__name__
    return _OLD_IDS.get(name, f"SJDDecoder{name.replace('SJD', '').removesuffix('Scheduler')}")


def solver_id(solver: type) -> str:
    """`SJDSolver` and the name of the class without what all have in common."""
    return f"SJDSolver{solver.__name__.removesuffix('FlowSolver')}"


def values_of(cls: type, settings: dict[str, Any]) -> dict[str, Any]:
    """What inputs of a scheduler's node stand for: numbers and texts not set are None, 0 may stand for a word."""
    declared = {name: settings_of(cls)[name] for name in settings}
    none = {name: None for name, one in declared.items() if one.takes(None) and settings[name] in (NOT_SET, "")}
    words = {name: one.choices[0] for name, one in declared.items() if has_word(one) and settings[name] == WORD}
    return settings | none | words


def has_word(setting: Setting) -> bool:
    """Whether a number may be a word instead."""
    return setting.is_number and bool(setting.choices)


def picture_seeds(seed: int, count: int) -> list[int]:
    """Seeds of a batch: the given one, then some that are scattered, so that the next batch repeats no picture.

    Core's node for integers may give a negative one; that is scattered, too.
    """
    first = seed if seed >= 0 else _scattered(f"{seed}")
    return [first, *(_scattered(f"{seed} {index}") for index in range(1, count))]


def _scattered(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> (64 - EXACT_BITS)


def pictures_of(graph: Any, parallel: bool = False) -> list[GraphPicture]:
    """The pictures that the samplers of a graph draw, in the order of the nodes.

    Args:
        graph: number of each node -> what it is.
        parallel: whether the model makes tokens in groups, which the graph does not say.

    Raises:
        ValueError: there is none, or what one draws is not in the graph.
    """
    if not isinstance(graph, dict):
        raise ValueError("the graph in it is damaged.")
    found = []
    for number, node in graph.items():
        if isinstance(node, dict) and node.get("class_type") in _SAMPLERS:
            found += _Sampler(graph, number, parallel).pictures()
    if not found:
        raise ValueError(f"the graph in it has no {' or '.join(_SAMPLERS)}.")
    return found


class _Sampler:
    """A sampler in a graph."""

    def __init__(self, graph: Mapping[str, Any], number: str, parallel: bool):
        self.graph, self.number, self.parallel = graph, number, parallel
        self.type, self.inputs = self._node(number)
        self.model, self.prompt, self.decoder = _SAMPLERS[self.type]

    def pictures(self) -> Iterator[GraphPicture]:
        _, loader = self._node(self._linked(self.model))
        model, dtype = self._value(loader, "model", str), self._value(loader, "dtype", str)
        model = next((name for name, label in LABELS.items() if label == model), model)
        columns = {"prompt": self._value(self.inputs, self.prompt, str), "settings": self._settings()}
        negative = self._value(self.inputs, "negative_prompt", str, "").strip()
        columns |= {"negative_prompt": negative} if negative else {}
        columns |= self._size()
        seed, count = self._value(self.inputs, "seed", int), self._value(self.inputs, "batch_size", int, 1)
        if abs(seed) > MAX_SEED or not 1 <= count <= MOST_PICTURES:
            raise ValueError(f"node {self.number} has seed {shown(seed)} and batch_size {shown(count)}.")
        return (GraphPicture(model, dtype, columns | {"seed": one}) for one in picture_seeds(seed, count))

    def _size(self) -> dict[str, int]:
        """Height and width in pixels, where they are not the model's own."""
        size = self._value(self.inputs, "size", str, BY_NUMBERS)
        if size not in (BY_NUMBERS, OWN_SIZE):
            raise ValueError(f"node {self.number} has size {shown(size)}, a shape; what that is the model says.")
        sides = {side: self._value(self.inputs, side, int, 0) for side in ("height", "width")}
        return {side: pixels for side, pixels in sides.items() if pixels and size == BY_NUMBERS}

    def _settings(self) -> dict[str, Any]:
        given = {name: self._value(self.inputs, name, float, OWN) for name in OPTIONS}
        settings: dict[str, Any] = {OPTIONS[name]: value for name, value in given.items() if value != OWN}
        for node in self.graph.values():
            if isinstance(node, dict) and node.get("class_type") == "SJDFlowDecode":
                inputs = node.get("inputs") or {}
                strength = self._value(inputs, "denoise", float, OWN)
                if strength != OWN and inputs.get("patches", [None])[0] == self.number:
                    settings["denoise_strength"] = strength
        if self.decoder not in self.inputs:
            return settings
        kind, inputs = self._node(self._linked(self.decoder))
        if kind == "SJDDecoder":
            preset, window = (self._value(inputs, name, str) for name in ("preset", "window"))
            name, chosen = for_any_model(preset, window, self.parallel)
            return settings | {"scheduler": {"name": name, **chosen}}
        ids = {decoder_id(cls): name for name, cls in SCHEDULERS.items()}
        ids |= {solver_id(cls): name for name, cls in FLOW_SOLVERS.items()}
        if kind not in ids:
            raise ValueError(
                f"{self.decoder} of node {self.number} comes from {shown(kind)}, which the file can't tell."
            )
        cls = {**SCHEDULERS, **FLOW_SOLVERS}[ids[kind]]
        known = {name: setting.default for name, setting in settings_of(cls).items()}
        chosen = {name: self._value(inputs, name, object, default) for name, default in known.items()}
        return settings | {"scheduler": {"name": ids[kind], **values_of(cls, chosen)}}

    def _node(self, number: Any) -> tuple[Any, Mapping[str, Any]]:
        node = self.graph.get(number) if isinstance(number, str) else None
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            raise ValueError(f"the graph in it has no node {shown(number)}.")
        return node.get("class_type"), node["inputs"]

    def _linked(self, name: str) -> Any:
        link = self.inputs.get(name)
        if not isinstance(link, list) or len(link) != 2:
            raise ValueError(f"node {self.number} has nothing at its input {name}.")
        return link[0]

    def _value(self, inputs: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
        """An input that is a value, or comes from a node that holds nothing else."""
        value = inputs.get(name, default)
        if isinstance(value, list):
            origin, values = self._node(value[0] if value else None)
            if not str(origin).startswith("Primitive") or "value" not in values:
                raise ValueError(f"{name} comes from {shown(origin)}, whose output is not in the file.")
            value = values["value"]
        if not isinstance(value, kind if kind is not float else int | float):
            raise ValueError(f"{name} is {shown(value)}.")
        return value
