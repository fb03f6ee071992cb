"""Chameleon's weights as published: old shapes of norms, and a VQGAN decoder that the library has no place for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel
from safetensors import safe_open
from transformers import ChameleonForConditionalGeneration

from ..disk import expanded
from ..models import read_published_file, vq_model_from_published
from .loading import local_file
from .weights import check_weights, load_available_weights, load_network

VQ_PREFIX = "model.vqmodel."  # of Anole's conversion, which keeps the decoder beside the language model
HEAD_NORMS = ("q_norm.weight", "q_norm.bias", "k_norm.weight", "k_norm.bias")


def load_language_model(folder: Path, **kwargs: Any) -> ChameleonForConditionalGeneration:
    """The language model; `kwargs` go to `from_pretrained`.

    The library's copy of the VQGAN encodes only, is not used, and may be absent (Lumina-mGPT). Norms of queries and
    keys may be stored once per shard, as transformers did before 4.45, instead of once per head.

    Raises:
        ValueError: other weights are not those of the model.
    """
    model, absent, surplus = load_available_weights(ChameleonForConditionalGeneration, folder, **kwargs)
    absent, surplus = ({name for name in names if not name.startswith(VQ_PREFIX)} for names in (absent, surplus))
    norms = {name for name in absent if name.endswith(HEAD_NORMS)}
    for name, stored in _stored_weights(folder, norms.__contains__):
        parameter = model.get_parameter(name)
        heads, shards = len(parameter), len(stored)
        if stored.ndim == 2 and heads % shards == 0 and stored.shape[1:] == parameter.shape[1:]:
            parameter.data.copy_(stored.repeat_interleave(heads // shards, 0))
            absent.remove(name)
    check_weights(folder, absent, surplus)
    return model


def load_vq_model(
    folder: Path, source: VQModel | str | Path | None, hub_options: dict[str, Any] | None = None
) -> VQModel:
    """The decoder: `source` itself, the file (a path or on the hub) or folder it names, or what lies in `folder`.

    Args:
        folder: of the language model.
        source: as above.
        hub_options: for the download of a file.

    Raises:
        OSError: `source` does not exist or cannot be read.
        ValueError: no decoder is found.
    """
    if isinstance(source, VQModel):
        return source
    if source is not None:
        path = expanded(source)
        if path.is_dir():
            return load_network(VQModel, path, torch.float32)
        return vq_model_from_published(read_published_file(local_file(source, hub_options or {})))
    stored = _stored_weights(folder, lambda name: name.startswith(VQ_PREFIX))
    weights = {name.removeprefix(VQ_PREFIX): tensor.float() for name, tensor in stored}
    if any(name.startswith("decoder.") for name in weights):
        return vq_model_from_published(weights)
    checkpoints = sorted(folder.rglob("vqgan.ckpt"))
    if checkpoints:
        return vq_model_from_published(read_published_file(checkpoints[0]))
    raise ValueError(
        f"{folder} has no VQGAN decoder. Pass vq_model=, the path of Meta's vqgan.ckpt, for instance "
        "GAIR/Anole-7b-v0.1/tokenizer/vqgan.ckpt on the hub, which is open to all."
    )


def _stored_weights(folder: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights whose name is `wanted`, one at a time."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in filter(wanted, tensors.keys()):
                yield name, tensors.get_tensor(name)
