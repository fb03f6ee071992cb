"""Published files: reading and writing them safely, and LlamaGen's and PAR's transformer weights both ways."""

import argparse
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

import torch

from ..disk import replacing
from ..ranges import shown
from .llamagen import LLAMAGEN_SIZES, LlamaGenTransformer
from .vq import Weights, check_weights

_WRAPPERS = ("model", "module", "state_dict")  # of plain training, DeepSpeed, and Lightning; FSDP files have none
_RECOMPUTED = ("freqs_cis", "causal_mask")
FLOATS = ("float64", "float32", "float16", "bfloat16")  # what weights may be stored as
_WHOLE = ("int64", "int32", "bool")  # indices and masks beside them
_HEADS = {hidden_size: heads for _, heads, hidden_size in LLAMAGEN_SIZES.values()}
_LEARNED = "spe_tok_embeddings.special_embeddings.weight"  # PAR has them
# Published name -> ours, the same for every layer.
_NAMES = {
    "tok_embeddings.weight": "token_embedding.weight",
    "norm.weight": "norm.weight",
    "output.weight": "head.weight",
    "cls_embedding.embedding_table.weight": "class_embedding.weight",
    "cls_embedding.cap_proj.fc1.weight": "caption_embedding.up.weight",
    "cls_embedding.cap_proj.fc2.weight": "caption_embedding.down.weight",
    "cls_embedding.uncond_embedding": "caption_embedding.unconditional",
    _LEARNED: "learned_embedding.weight",
}
_EXPORTED = re.compile(r"(?:t2i|c2i|PAR-\d+x)_(\d+)")  # names of files that this package writes, of any size
PAR_IMAGE_SIZE = 384  # pixels per side; the names of PAR's files do not state it
# File -> guidance that its authors draw with.
PAR_GUIDANCE = {"PAR-XL-4x": 1.5, "PAR-XXL-4x": 1.435, "PAR-3B-4x": 1.345, "PAR-3B-16x": 1.5}
_LAYER_NAMES = {
    "attention.wqkv.weight": "attention.to_qkv.weight",
    "attention.wo.weight": "attention.to_out.weight",
    "feed_forward.w1.weight": "feed_forward.gate.weight",
    "feed_forward.w3.weight": "feed_forward.up.weight",
    "feed_forward.w2.weight": "feed_forward.down.weight",
    "attention_norm.weight": "attention_norm.weight",
    "ffn_norm.weight": "feed_forward_norm.weight",
}


def read_published_file(file: Path) -> Weights:
    """The state dict in a `.pt`, `.pth` or `.ckpt` file, whichever wrapper it is in.

    Only tensors and plain containers are unpickled; of other classes `argparse.Namespace` alone is allowed, in which
    the training scripts keep their settings.

    Raises:
        OSError: the file is damaged or holds other pickled classes.
        ValueError: it holds no state dict.
    """
    return _read(file)


def published_names(file: Path) -> set[str]:
    """Names of the weights in such a file; raises as `read_published_file`. Reads no weight if its format allows."""
    return set(_read(file, in_place=True))


def published_dtype(file: Path) -> torch.dtype:
    """What most numbers in such a file are stored as; raises and reads as `published_names`."""
    counts: Counter[torch.dtype] = Counter()
    for weight in _read(file, in_place=True).values():
        if weight.is_floating_point():
            counts[weight.dtype] += weight.numel()
    return counts.most_common(1)[0][0] if counts else torch.float32


def write_published_file(weights: Weights, file: Path, wrapper: str | None = "model") -> None:
    """Write `{wrapper: weights}`, or the weights as they are, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        torch.save(weights if wrapper is None else {wrapper: weights}, temporary)


def check_stored(file: Path, name: str, dtype: str) -> None:
    """Raise `ValueError` for a weight that is stored as no plain number of floating point, as quantised ones are.

    Args:
        file: it is from.
        name: of the weight, or of what is stored beside weights.
        dtype: of torch, without `torch.`; or as the file calls one that is neither float nor index.
    """
    if dtype not in FLOATS and (dtype not in _WHOLE or name.endswith((".weight", ".bias"))):
        raise ValueError(
            f"{file} holds {name} as {dtype}, and nothing says which number that stands for; weights are stored as "
            f"{', '.join(FLOATS)}."
        )


def image_size_of(file: Path, names: Collection[str] = ()) -> int:
    """Pixels per side, which a LlamaGen file states in its name alone, as in `c2i_B_384.pt`; of PAR there is one size.

    Args:
        file: whose name is read.
        names: of the weights in it.

    Raises:
        ValueError: the name does not say it.
    """
    if exported := _EXPORTED.fullmatch(file.stem):
        return int(exported[1])
    numbers = re.findall(r"(?<!\d)(256|384|512)(?!\d)", file.stem)
    if not numbers and _LEARNED in names:
        return PAR_IMAGE_SIZE
    if len(set(numbers)) != 1:
        raise ValueError(f"{file.name} does not tell its picture size; pass image_size=256, 384 or 512.")
    return int(numbers[0])


def llamagen_from_published(
    weights: Weights, sample_size: int, num_attention_heads: int | None = None
) -> LlamaGenTransformer:
    """Build the transformer from a published state dict; everything its shapes tell is read from them.

    Args:
        weights: published names, without a wrapper.
        sample_size: rows and columns of the token grid.
        num_attention_heads: None is that of the published model of this width.

    Raises:
        ValueError: the weights are not a LlamaGen's.
    """
    renamed = {}
    for name, tensor in weights.items():
        if name in _RECOMPUTED:
            continue
        target = _our_name(name)
        if target is None:
            raise ValueError(f"{name} is not a weight of LlamaGen's transformer.")
        renamed[target] = tensor
    config = _config(renamed, sample_size, num_attention_heads)
    with torch.device("meta"):
        model = LlamaGenTransformer(**config)
    check_weights(model, renamed, "the LlamaGen")
    model.load_state_dict(renamed, assign=True)
    return model.eval()


def published_llamagen_weights(model: LlamaGenTransformer) -> Weights:
    """The reverse of `llamagen_from_published`."""
    names = {ours: published for published, ours in _NAMES.items()}
    layer_names = {ours: published for published, ours in _LAYER_NAMES.items()}
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("layers."):
            _, index, part = name.split(".", 2)
            weights[f"layers.{index}.{layer_names[part]}"] = tensor
        else:
            weights[names[name]] = tensor
    return weights


def _read(file: Path, in_place: bool = False) -> Weights:
    """The state dict in a file; `in_place` leaves the weights on disk if its format allows."""
    try:
        mmap = in_place and zipfile.is_zipfile(file)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise
    except MemoryError as error:  # a damaged length
        raise OSError(f"{file} cannot be read as a checkpoint: it asks for too much memory.") from error
    except Exception as error:  # what a damaged pickle raises is anything: KeyError, IndexError, AssertionError, ...
        reason = " ".join(f"{type(error).__name__} {error}".split())[:300]
        raise OSError(f"{file} cannot be read as a checkpoint of plain tensors: {reason}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{file} holds no state dict.")
    weights = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not all(isinstance(name, str) for name in weights):
        raise ValueError(f"{file} holds weights without names.")
    for name, weight in weights.items():
        if name not in _RECOMPUTED:
            check_stored(file, name, str(weight.dtype).removeprefix("torch."))
    return weights


def count_of(indices: Iterable[int], what: str) -> int:
    """How many layers, or blocks, there are. Raises `ValueError` unless they are numbered from 0 without a gap."""
    found = set(indices)
    if found != set(range(len(found))):
        raise ValueError(f"These weights have {what} {shown(sorted(found))}, which are not numbered from 0 on.")
    return len(found)


def _our_name(name: str) -> str | None:
    if name.startswith("layers.") and name.count(".") > 2:
        _, index, part = name.split(".", 2)
        return f"layers.{index}.{_LAYER_NAMES[part]}" if part in _LAYER_NAMES and index.isdecimal() else None
    return _NAMES.get(name)


def _config(weights: Weights, sample_size: int, heads: int | None) -> dict:
    try:
        codebook_size, hidden_size = _shape(weights, "token_embedding.weight")
        if heads is None:
            heads = _HEADS.get(hidden_size)
        if heads is None:
            raise ValueError(f"No published LlamaGen has hidden size {hidden_size}; give num_attention_heads.")
        config = {
            "num_layers": count_of(
                (int(name.split(".")[1]) for name in weights if name.startswith("layers.")), "layers"
            ),
            "num_attention_heads": heads,
            "hidden_size": hidden_size,
            "intermediate_size": _shape(weights, "layers.0.feed_forward.gate.weight")[0],
            "codebook_size": codebook_size,
            "sample_size": sample_size,
        }
        if "learned_embedding.weight" in weights:
            config["parallel_tokens"] = _shape(weights, "learned_embedding.weight")[0] + 1
        if "class_embedding.weight" in weights:
            classes = _shape(weights, "class_embedding.weight")[0] - 1
            return config | {"num_classes": classes, "caption_channels": None}
        length, channels = _shape(weights, "caption_embedding.unconditional")
        return config | {"caption_channels": channels, "caption_length": length}
    except KeyError as error:
        raise ValueError(f"These weights are not a LlamaGen transformer's: {error} is missing.") from error


def _shape(weights: Weights, name: str) -> torch.Size:
    """Of a matrix, from which a size is read."""
    shape = weights[name].shape
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} should have rows and columns, got shape {tuple(shape)}.")
    return shape
