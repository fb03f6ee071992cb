"""Adapters: models that are what they change in another one, their base; merged into its weights when they are loaded.

A folder in the layout of PEFT's LoRA (Hu et al. 2021, arXiv 2106.09685): `adapter_config.json`, which names the base,
and `adapter_model.safetensors`. `base.json` beside them records which weights the base must have.
"""

import copy
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..companions import COMPANIONS
from ..disk import read_object, write_json

CONFIG, WEIGHTS, RECORD = "adapter_config.json", "adapter_model.safetensors", "base.json"
PREFIX = "base_model.model."  # of the names of all weights
_MERGE = "merge it with the peft package (merge_and_unload), save the result and load that"
# Settings of training and of files. Whatever else is set changes what an adapter does in ways that only PEFT knows.
_KNOWN = {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "eva_config"),
    *("exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha"),
    *("lora_dropout", "megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r"),
    *("rank_pattern", "revision", "target_modules", "task_type", "use_rslora"),
}
_KEEP_BASE = (None, True, False, "gaussian", "eva", "orthogonal")  # initial weights that leave those of the base alone


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (folder / CONFIG).is_file() and not (folder / "model_index.json").is_file()


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder.

    Attributes:
        folder: where it is.
        config: of `adapter_config.json`.
    """

    folder: Path
    config: dict[str, Any]

    @classmethod
    def of_folder(cls, folder: Path) -> "Adapter":
        """Raises `OSError` for a configuration that cannot be read, `ValueError` for an adapter of another kind."""
        config = read_object(folder / CONFIG)
        if config.get("peft_type") != "LORA":
            kind = config.get("peft_type")
            raise ValueError(f"{folder} holds an adapter of type {kind!r}; only LORA is merged here.")
        others = sorted(name for name, value in config.items() if value and name not in _KNOWN)
        if config.get("bias") not in (None, "none"):
            others.append("bias")
        if config.get("init_lora_weights") not in _KEEP_BASE:
            others.append("init_lora_weights")
        if others:
            raise ValueError(f"{folder} holds an adapter with {', '.join(others)}, not plain LoRA; {_MERGE}.")
        patterns = config.get("alpha_pattern") or {}
        alphas = [config.get("lora_alpha"), *(patterns.values() if isinstance(patterns, dict) else [None])]
        if not all(isinstance(alpha, int | float) and math.isfinite(alpha) for alpha in alphas):
            raise ValueError(f"{folder / CONFIG}: lora_alpha, and all in alpha_pattern, must be finite numbers.")
        return cls(folder, config)

    @property
    def base(self) -> str | Path:
        """The model that it builds on, as `from_pretrained` takes it. Raises `OSError` if it does not say."""
        name = self.config.get("base_model_name_or_path")
        if not isinstance(name, str) or not name:
            raise OSError(f"{self.folder / CONFIG} names no base: set base_model_name_or_path.")
        return self.folder / name if name.startswith(".") else name

    def check_base(self, base: Path) -> None:
        """Raise `ValueError` unless the weights in the folder `base` are those that are recorded, if any are."""
        record = self.folder / RECORD
        if not record.is_file():
            return
        recorded = read_object(record).get("weights")
        if not isinstance(recorded, dict) or not recorded:
            raise OSError(f"{record} has no weights, a map from file names to SHA-256 digests.")
        for name, digest in recorded.items():
            file = base / name
            found = file_digest(file) if file.is_file() else "no such file"
            if found != digest:
                raise ValueError(
                    f"{self.folder} is an adapter for other weights than {base} has: {name} must have SHA-256 "
                    f"{str(digest)[:12]}..., found {found[:12]}. Give its own base in {CONFIG}, or train it again."
                )

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Its weights, by name in the network that it adapts. Raises `OSError` if there are none."""
        file = self.folder / WEIGHTS
        if not file.is_file():
            raise OSError(f"{self.folder} has no {WEIGHTS}.")
        return {name.removeprefix(PREFIX): tensor for name, tensor in load_file(file).items()}

    @torch.no_grad()
    def merge_into(self, networks: Mapping[str, torch.nn.Module]) -> torch.nn.Module:
        """Change the weights of the network that has all modules of this adapter; returns it.

        Nothing is changed unless all of it fits.

        Args:
            networks: that come into question, by name.

        Raises:
            ValueError: none has them, or one is of another shape or kind.
        """
        network = next((one for one in networks.values() if not self._strange(one)), None)
        if network is None:
            strange = ", ".join(min((self._strange(one) for one in networks.values()), key=len)[:3])
            raise ValueError(f"{self.folder} does not fit {', '.join(networks)}: there is no place for {strange}.")
        merged = {}
        for name, tensor in self.tensors.items():
            if name.endswith(".lora_A.weight"):
                module = name.removesuffix(".lora_A.weight")
                weight = self._weight(network, f"{module}.weight")
                change = self.tensors[f"{module}.lora_B.weight"].float() @ tensor.float() * self._scale(module, tensor)
                merged[f"{module}.weight"] = weight, weight.float() + self._fitting(change, weight, module)
            elif not name.endswith(".lora_B.weight"):  # trained as a whole
                weight = self._weight(network, name)
                merged[name] = weight, self._fitting(tensor, weight, name)
        for weight, values in merged.values():
            weight.copy_(values)
        return network

    def _strange(self, network: torch.nn.Module) -> list[str]:
        """Names of its weights that this network has no place for."""
        linear = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
        known = {name for name, _ in network.named_parameters()}
        for part, other in (("A", "B"), ("B", "A")):
            known |= {f"{name}.lora_{part}.weight" for name in linear if f"{name}.lora_{other}.weight" in self.tensors}
        return [name for name in self.tensors if name not in known]

    def _weight(self, network: torch.nn.Module, name: str) -> torch.Tensor:
        weight = network.get_parameter(name)
        if weight.is_meta or not weight.is_floating_point() or type(weight.data) is not torch.Tensor:
            raise ValueError(
                f"{self.folder} can't be merged into {name}, which is quantised or not in memory; load it without "
                "quantization_config and device_map, save the pipeline and load that."
            )
        return weight

    def _fitting(self, values: torch.Tensor, weight: torch.Tensor, name: str) -> torch.Tensor:
        if values.shape != weight.shape:
            raise ValueError(
                f"{self.folder} does not fit {name}: {tuple(values.shape)} instead of {tuple(weight.shape)}."
            )
        return values.to(weight.device)

    def _scale(self, module: str, down: torch.Tensor) -> float:
        patterns = (self.config.get("alpha_pattern") or {}).items()
        default = self.config["lora_alpha"]
        alpha = next((value for key, value in patterns if re.match(rf"(.*\.)?({key})$", module)), default)
        rank = down.shape[0]
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)


def has_adapters(network: Any) -> bool:
    """Whether PEFT has put adapters into a network."""
    return isinstance(network, torch.nn.Module) and bool(getattr(network, "peft_config", None))


def without_adapters(network: torch.nn.Module) -> torch.nn.Module:
    """A copy of a network with the adapters that PEFT has put into it, as far as they are active, in its weights.

    Raises:
        ValueError: they can't be merged.
    """
    from peft import PeftModel  # it is there, or there would be no adapters
    from peft.tuners.tuners_utils import BaseTunerLayer

    network = copy.deepcopy(network)
    if isinstance(network, PeftModel):
        return network.merge_and_unload()
    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            if not module.disable_adapters:
                module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, module.get_base_layer())
    if any("modules_to_save" in name for name, _ in network.named_modules()):
        raise ValueError(f"an adapter trained modules as a whole; {_MERGE}.")
    del network.peft_config
    network._hf_peft_config_loaded = False  # transformers and diffusers would save the adapters alone
    return network


def record_base(folder: Path, base: Path) -> None:
    """Write into an adapter's folder which weights its base, the model in the folder `base`, must have."""
    weights = {file.relative_to(base).as_posix(): file_digest(file) for file in base_weights(base)}
    if not weights:
        raise OSError(f"{base} has no .safetensors weights.")
    write_json(folder / RECORD, {"weights": weights})


def base_weights(base: Path) -> list[Path]:
    """The files whose weights an adapter depends on: all of a model but its companions'."""
    files = sorted(base.rglob("*.safetensors"))
    return [file for file in files if file.relative_to(base).parts[0] not in COMPANIONS]


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
