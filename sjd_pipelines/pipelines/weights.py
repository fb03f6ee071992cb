"""Weights in safetensors files: whether they are those of the model, all of them. Nothing is left random or out."""

import re
from collections.abc import Collection, Iterable
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from ..disk import read_object
from ..ranges import shown
from .weight_files import is_quantized

LIBRARIES = ("diffusers", "sjd_pipelines", "transformers")  # a model_index.json cannot make us import others
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")  # of a layer, in the name of a module


def check_parts(index: Path, parts: dict[str, Any]) -> None:
    """Raise `ValueError` for an index that names other libraries: diffusers would import what it names."""
    for name, entry in parts.items():
        if isinstance(entry, list) and not name.startswith("_") and entry != [None, None]:
            texts = len(entry) == 2 and all(isinstance(part, str) for part in entry)
            if not texts or entry[0] not in LIBRARIES or not entry[1].isidentifier():
                raise ValueError(
                    f"{index} names {shown(entry)} as its {name}; models of this package are made of classes of "
                    f"{', '.join(LIBRARIES)}."
                )


def check_networks(folder: Path, family: type, given: Collection[str] = (), variant: str | None = None) -> None:
    """Raise unless a diffusers-layout folder has all networks of its family, of its classes and whole.

    The libraries only log what is missing, and draw it at random, and what is left over.

    Args:
        folder: with a `model_index.json`.
        family: its pipeline class.
        given: components that are not loaded from it.
        variant: of the files, as in `model.fp16.safetensors`.

    Raises:
        OSError: a folder or a configuration is missing.
        ValueError: the index names another class than the family has, or weights are not those of the model.
    """
    index = read_object(folder / "model_index.json")
    for name, parameter in signature(family).parameters.items():
        entry, optional = index.get(name), parameter.default is not Parameter.empty
        if name in given or (optional and (not isinstance(entry, list) or entry == [None, None])):
            continue
        if not isinstance(entry, list) or entry == [None, None]:
            raise ValueError(f"{folder}: model_index.json names no {name}, which a {family.__name__} needs.")
        if not (folder / name).is_dir():
            raise OSError(f"{folder} has no folder {name}, which its model_index.json names.")
        cls = getattr(import_module(entry[0]), entry[1], None)
        expected = next(
            (one for one in (parameter.annotation, *get_args(parameter.annotation)) if _is_network(one)), None
        )
        if expected is None:
            continue
        if not _is_network(cls) or not issubclass(cls, expected):
            raise ValueError(
                f"{folder}: model_index.json names {entry[1]} as its {name}; a {family.__name__} has a "
                f"{expected.__name__}."
            )
        check_weights(folder / name, *_differing(cls, folder / name, variant))


def _is_network(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, torch.nn.Module)


def _differing(cls: type[torch.nn.Module], folder: Path, variant: str | None) -> tuple[set[str], set[str]]:
    """Absent and surplus weights of a network, as `load_available_weights` tells them; nothing of it is allocated."""
    if is_quantized(folder):
        return set(), set()  # whose names and shapes only its library knows
    if issubclass(cls, PreTrainedModel):
        return load_available_weights(cls, folder, device_map="meta", variant=variant)[1:]
    files = list(folder.glob("*.safetensors"))
    files = [file for file in files if variant and f".{variant}" in file.name] or files
    stored = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            stored |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    with torch.device("meta"):
        network = cls.from_config(cls.load_config(folder))
    absent = {name for name, tensor in network.state_dict().items() if stored.get(name) != list(tensor.shape)}
    return absent, stored.keys() - network.state_dict().keys()


def load_transformers_model(cls: type, folder: Path, **kwargs: Any) -> Any:
    """A transformers model from safetensors; raises `ValueError` unless the weights are those of the model."""
    model, absent, surplus = load_available_weights(cls, folder, **kwargs)
    check_weights(folder, absent, surplus)
    return model


def load_available_weights(cls: type, folder: Path, **kwargs: Any) -> tuple[Any, set[str], set[str]]:
    """A transformers model, and names of absent and of surplus weights.

    Absent are those that the files lack or hold in another shape, surplus those for which its modules have no place.
    """
    options = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True} | kwargs
    model, report = cls.from_pretrained(folder, **options)
    mismatched = {name for name, *_ in report["mismatched_keys"]}  # their shapes are reported as well
    surplus = set() if is_quantized(folder) else _surplus(model, report["unexpected_keys"])
    return model, mismatched.union(report["missing_keys"]), surplus


def check_weights(folder: Path, absent: set[str], surplus: set[str]) -> None:
    """Raise `ValueError` if there are `absent` or `surplus` weights."""
    if absent:
        some = sorted(absent)[:3]
        raise ValueError(
            f"{folder} lacks {len(absent)} weights of the model its config describes, or has them in another shape: "
            f"{some}."
        )
    if surplus:
        some = sorted(surplus)[:3]
        raise ValueError(
            f"{folder} has {len(surplus)} weights for which the model its config describes has no place: {some}; "
            "put the config.json that belongs to them beside them."
        )


def _surplus(network: torch.nn.Module, names: Iterable[str]) -> set[str]:
    """Those names that belong to a module as the network has them, its number aside: a layer more, a bias.

    Others are of no module: constants that older versions of a library kept, heads for other uses.
    """
    modules = {_module(name) for name in network.state_dict()}
    return {name for name in names if _module(name) in modules}


def _module(name: str) -> str:
    """The module that a weight belongs to, without its number among its like."""
    return _NUMBER.sub("#", name.rpartition(".")[0])


def load_network(cls: type[torch.nn.Module], folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """A network of diffusers' kind in a folder of its own; raises `ValueError` unless the weights are its own."""
    network, report = cls.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
    check_weights(folder, set(report["missing_keys"]), set(report["unexpected_keys"]))
    # Past diffusers' own `to`, which warns of float32 modules that there are none of.
    return torch.nn.Module.to(network, dtype).eval()
