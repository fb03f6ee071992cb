"""Weights in safetensors files: whether all that a model has are there and have its shapes. Nothing is left random."""

from collections.abc import Collection
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from ..disk import read_object
from ..ranges import shown

LIBRARIES = ("diffusers", "sjd_pipelines", "transformers")  # a model_index.json cannot make us import others


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

    The libraries only log what is missing, and draw it at random.

    Args:
        folder: with a `model_index.json`.
        family: its pipeline class.
        given: components that are not loaded from it.
        variant: of the files, as in `model.fp16.safetensors`.

    Raises:
        OSError: a folder or a configuration is missing.
        ValueError: the index names another class than the family has, or a weight is missing or of another shape.
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
        check_complete(folder / name, _absent(cls, folder / name, variant))


def _is_network(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, torch.nn.Module)


def _absent(cls: type[torch.nn.Module], folder: Path, variant: str | None) -> set[str]:
    """Names of the weights of a network that its files lack or hold in another shape; nothing of it is allocated."""
    if "quantization_config" in read_object(folder / "config.json"):
        return set()  # whose names and shapes only its library knows
    if issubclass(cls, PreTrainedModel):
        return load_available_weights(cls, folder, device_map="meta", variant=variant)[1]
    files = list(folder.glob("*.safetensors"))
    files = [file for file in files if variant and f".{variant}" in file.name] or files
    stored = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            stored |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    with torch.device("meta"):
        network = cls.from_config(cls.load_config(folder))
    return {name for name, tensor in network.state_dict().items() if stored.get(name) != list(tensor.shape)}


def load_transformers_model(cls: type, folder: Path, **kwargs: Any) -> Any:
    """A transformers model from safetensors; raises `ValueError` where a weight is missing or of another shape."""
    model, absent = load_available_weights(cls, folder, **kwargs)
    check_complete(folder, absent)
    return model


def load_available_weights(cls: type, folder: Path, **kwargs: Any) -> tuple[Any, set[str]]:
    """A transformers model, and the names of its weights that the files lack or hold in another shape."""
    options = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True} | kwargs
    model, report = cls.from_pretrained(folder, **options)
    mismatched = {name for name, *_ in report["mismatched_keys"]}  # their shapes are reported as well
    return model, mismatched.union(report["missing_keys"])


def check_complete(folder: Path, absent: set[str]) -> None:
    """Raise `ValueError` if there are `absent` weights."""
    if absent:
        some = sorted(absent)[:3]
        raise ValueError(
            f"{folder} lacks {len(absent)} weights of the model its config describes, or has them in another shape: "
            f"{some}."
        )


def load_companion(cls: type[torch.nn.Module], folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """A network in a folder of its own; raises `ValueError` where a weight is missing or of another shape."""
    network, report = cls.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
    check_complete(folder, set(report["missing_keys"]))
    # Past diffusers' own `to`, which warns of float32 modules that there are none of.
    return torch.nn.Module.to(network, dtype).eval()
