"""Options of loading, read in one place: the same ones, with the same errors, for every layout of a model."""

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.quantizers import PipelineQuantizationConfig
from diffusers.quantizers.quantization_config import QuantizationConfigMixin as DiffusersQuantizationConfigMixin
from safetensors import safe_open
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..ranges import near, shown
from .devices import read_device
from .weight_files import FORMATS

HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download")
# What every family's loader is told, beside its own options.
COMMON = ("scheduler", "dtype", "device_map", "quantization_config", "max_memory", "variant")
AUTO = "auto"
_BALANCED = "balanced"
# Options that other loaders have, and why there are none here.
_REFUSED = {
    "attn_implementation": "attention is PyTorch's SDPA, which takes the masks that windows of drafts need",
    "custom_pipeline": "a pipeline of another class is loaded by that class",
    "trust_remote_code": "no code that comes with a model is run",
}
_SHORT_NAMES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


def take_hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of a download out of `options`."""
    return {name: options.pop(name) for name in HUB if name in options}


def read_subfolder(options: dict[str, Any]) -> str | None:
    """Take the folder inside of a model's folder out of `options`; raises `ValueError` for what is none."""
    subfolder = options.pop("subfolder", None)
    if subfolder is None or subfolder == "":
        return None
    if not isinstance(subfolder, str | Path) or ".." in Path(subfolder).parts or Path(subfolder).is_absolute():
        raise ValueError(f"subfolder must be the name of a folder inside of the model's, got {shown(subfolder)}.")
    return Path(subfolder).as_posix()


def elsewhere(hub_options: dict[str, Any]) -> dict[str, Any]:
    """The same for a download from another repository, which has revisions of its own."""
    return {name: value for name, value in hub_options.items() if name != "revision"}


def read_options(options: Mapping[str, Any], family: type) -> dict[str, Any]:
    """The options of a load, each in one spelling.

    Args:
        options: as the caller gave them, without those of a download.
        family: the pipeline class of the model.

    Returns:
        `dtype` as a torch dtype or `auto`, `scheduler` as an object, and the others that are given.

    Raises:
        ValueError: there is no such option, two of them contradict each other, or one has no such value.
    """
    options = dict(options)
    if not options.pop("use_safetensors", True):
        raise ValueError("use_safetensors must be True: weights are read from safetensors alone.")
    spelled = [options.pop(name, None) for name in ("dtype", "torch_dtype")]
    dtypes = {read_dtype(value) for value in spelled if value is not None}
    if len(dtypes) > 1:
        raise ValueError("dtype and torch_dtype differ; pass one of them.")
    known = {*COMMON, *loader_options(family)}
    for name in options:
        if name in _REFUSED:
            raise ValueError(f"{name}: {_REFUSED[name]}.")
        if name not in known:
            place = family.scheduler_type.place_of_setting(name) or near(name, known)
            raise ValueError(f"{family.__name__} has no option {shown(name)}{place}.")
    if options.get("scheduler") not in (None, *family.loader_schedulers):
        options["scheduler"] = family.read_scheduler(options["scheduler"])
    if options.get("device_map") not in (None, AUTO, _BALANCED):
        options["device_map"] = str(_read_device_map(options["device_map"]))
    if (quantization := options.get("quantization_config")) is not None:
        _check_quantization(quantization, _network(family))
    return options | ({"dtype": dtypes.pop()} if dtypes else {})


def loader_options(family: type) -> set[str]:
    """What the constructor and the loaders of a family can be told."""
    names = ("__init__", "load_transformers_parts", "load_published_files")
    loaders = [inspect.signature(getattr(family, name)) for name in names if hasattr(family, name)]
    parameters = [parameter for loader in loaders for parameter in loader.parameters.values()]
    named = {parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
    return named - {"self", "folder", "file", "hub_options"}


def read_dtype(value: Any) -> torch.dtype | str:
    """A floating-point torch dtype, or `auto`; its name will do: `bfloat16`, `torch.bfloat16`, `bf16`.

    Raises:
        ValueError: it is none.
    """
    if value == AUTO:
        return AUTO
    dtype = value
    if isinstance(value, str):
        name = value.removeprefix("torch.")
        dtype = getattr(torch, _SHORT_NAMES.get(name, name), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or dtype.itemsize < 2:
        raise ValueError(
            "dtype must be a torch dtype such as torch.bfloat16, its name, or 'auto' for that of the file; "
            f"got {shown(value)}."
        )
    return dtype


def stored_dtype(files: Iterable[Path]) -> torch.dtype:
    """What most numbers in some safetensors files are stored as; float32 where they hold none."""
    counts: Counter[str] = Counter()
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                part = tensors.get_slice(name)
                if part.get_dtype() in FORMATS:
                    counts[FORMATS[part.get_dtype()]] += torch.Size(part.get_shape()).numel()
    return getattr(torch, counts.most_common(1)[0][0]) if counts else torch.float32


def for_diffusers(options: dict[str, Any], family: type) -> dict[str, Any]:
    """The options as diffusers' loader wants them: its own words for a device map and for quantization."""
    options = dict(options)
    if options.get("device_map") == AUTO:
        options["device_map"] = _BALANCED
    config = options.get("quantization_config")
    if config is not None and not isinstance(config, PipelineQuantizationConfig):
        options["quantization_config"] = PipelineQuantizationConfig(quant_mapping={_network(family): config})
    return options


def for_transformers(options: dict[str, Any]) -> dict[str, Any]:
    """The same for transformers' loader, which loads one component, `model`."""
    options = dict(options)
    if options.get("device_map") == _BALANCED:
        options["device_map"] = AUTO
    config = options.get("quantization_config")
    if isinstance(config, PipelineQuantizationConfig):
        options["quantization_config"] = config.quant_mapping["model"]
    return options


def _read_device_map(value: Any) -> torch.device:
    try:
        return read_device(value)
    except ValueError as error:
        raise ValueError(f"device_map must be 'auto', 'balanced' or a device: {error}") from error


def _network(family: type) -> str:
    """Name of the component that predicts tokens, the first that a pipeline is made of."""
    return next(iter(inspect.signature(family).parameters))


def _check_quantization(config: Any, network: str) -> None:
    """Raise `ValueError` for what is no configuration, or one for other components than the network."""
    if isinstance(config, PipelineQuantizationConfig):
        if network not in (config.quant_mapping or {}):
            raise ValueError(f"quantization_config must have a quant_mapping with an entry for {network!r}.")
    elif not isinstance(config, QuantizationConfigMixin | DiffusersQuantizationConfigMixin):
        raise ValueError(
            "quantization_config must be a configuration of transformers, such as BitsAndBytesConfig, or diffusers' "
            f"PipelineQuantizationConfig with one for {network!r}; got {shown(config)}."
        )
