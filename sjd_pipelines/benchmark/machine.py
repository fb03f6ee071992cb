"""What a reader needs to judge seconds by: the machine, the versions, and which weights ran."""

import hashlib
import platform
from typing import Any

import diffusers
import torch
import transformers

from ..pipelines import SJDAutoRegressivePipeline
from ..version import __version__

_SAMPLED = 16  # values of each weight that enter the fingerprint


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Device, threads and versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "diffusers": diffusers.__version__,
        "sjd_pipelines": __version__,
    }


def pipeline_facts(pipe: SJDAutoRegressivePipeline) -> dict[str, Any]:
    """Class, weights and number format, and where they run."""
    return {
        "pipeline": type(pipe).__name__,
        "weights": weights_fingerprint(pipe),
        "dtype": str(pipe.dtype).removeprefix("torch."),
    } | machine_facts(pipe.device)


def weights_fingerprint(pipe: SJDAutoRegressivePipeline) -> str:
    """Eight hex digits that change when a model is trained further: a hash of some values of every weight."""
    digest = hashlib.sha256()
    for name, component in sorted(pipe.components.items()):
        if isinstance(component, torch.nn.Module):
            for key, parameter in component.named_parameters():
                values = parameter.detach().flatten()[:_SAMPLED].float().tolist()
                digest.update(f"{name}.{key} {tuple(parameter.shape)} {values}".encode())
    return digest.hexdigest()[:8]


def wait_for(device: torch.device) -> None:
    """GPUs work while Python goes on; a clock must not."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
