"""Published TarFlow files (`.pth`): their configuration from names and shapes, and how their authors sampled them."""

import re
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..ranges import Range
from .published import count_of
from .tarflow import TarFlowTransformer2DModel
from .vq import Weights, check_weights

HEAD_DIM = 64  # of all published models
NOISE_STD = Range(0, 100)  # pictures lie in [-1, 1]
IN_CHANNELS = Range(1, 1024, whole=True)
_RECOMPUTED = re.compile(r"blocks\.\d+\.attn_mask")
_BLOCK = re.compile(r"blocks\.(\d+)\.(?:attn_blocks\.(\d+)\.)?")


@dataclass(frozen=True)
class PublishedTarFlow:
    """A published file.

    Attributes:
        image_size: pixels per side.
        classes: 0 for an unconditional model.
        sampling: what its pictures were drawn with.
        strategy: of Gauss-Seidel-Jacobi, found by hand; None if there is none.
        starts: first iterate of each block in the order of sampling.
    """

    image_size: int
    classes: int
    sampling: dict[str, Any]
    strategy: str | None = None
    starts: str = ""


def _sampling(guidance_scale: float, denoise_strength: float, attention_temperature: float = 1.0) -> dict[str, Any]:
    return {
        "guidance_scale": guidance_scale,
        "denoise_strength": denoise_strength,
        "attention_temperature": attention_temperature,
    }


# By name of the file, dataset_model_patch_width_blocks_layers_sigma.pth (Liu & Qin 2025, arXiv 2505.12849, tables).
PUBLISHED_TARFLOWS: dict[str, PublishedTarFlow] = {
    "afhq_model_8_768_8_8_0.07": PublishedTarFlow(
        256, 3, _sampling(3.4, 1.4), "7-8-32-10", "0/0/0/0/0/1/1/0"
    ),
    "imagenet_model_4_1024_8_8_0.15": PublishedTarFlow(
        128, 1000, _sampling(1.5, 0.97), "6-8-32-10", "0/1/0/0/0/0/1/0"
    ),
    "imagenet_model_4_1024_8_8_0.05": PublishedTarFlow(
        64, 1000, _sampling(2.0, 1.0), "0/7-256/8-1/13-6", "1/0/0/0/0/1/1/1"
    ),
    "imagenet_model_2_768_8_8_0.05": PublishedTarFlow(64, 1000, _sampling(2.0, 1.0)),
    "imagenet64_model_2_768_8_8_0.05": PublishedTarFlow(
        64, 0, _sampling(0.2, 0.9, 0.3), "0/6-8-32-20", "0/1/0/0/1/0/1/1"
    ),
}  # fmt: skip


def noise_std_of(file: Path) -> float:
    """Standard deviation of the training noise, which a published file states in its name alone, at the end.

    Raises:
        ValueError: the name does not say it.
    """
    match = re.search(r"_(\d+\.\d+)$", file.stem)
    if match is None:
        raise ValueError(f"{file.name} does not tell the noise it was trained with; pass noise_std=0.05 or the like.")
    return float(match[1])


def tarflow_from_published(
    weights: Weights, noise_std: float, in_channels: int = 3, attention_head_dim: int = HEAD_DIM
) -> TarFlowTransformer2DModel:
    """Build the flow from a published state dict; everything its shapes tell is read from them.

    Args:
        weights: published names. Attention masks in it are left out: they are recomputed.
        noise_std: of the training noise.
        in_channels: channels of a picture.
        attention_head_dim: channels of a head; 64 in all published files.

    Raises:
        ValueError: the weights are not a TarFlow's, or a number is out of range.
    """
    noise_std, in_channels = NOISE_STD.check("noise_std", noise_std), IN_CHANNELS.check("in_channels", in_channels)
    weights = {name: tensor for name, tensor in weights.items() if not _RECOMPUTED.fullmatch(name)}
    config = _config(weights, in_channels, attention_head_dim)
    with torch.device("meta"):
        model = TarFlowTransformer2DModel(**config, noise_std=noise_std)
    check_weights(model, weights, "the TarFlow")
    model.load_state_dict(weights, assign=True)
    return model.eval()


def published_tarflow_weights(model: TarFlowTransformer2DModel) -> Weights:
    """The reverse of `tarflow_from_published`, attention masks included.

    Raises:
        ValueError: its heads are not those of the published models, whose files do not tell theirs.
    """
    if model.config.attention_head_dim != HEAD_DIM:
        raise ValueError(
            f"The authors' code knows heads of {HEAD_DIM} channels only, and a file does not tell others; this flow "
            f"has {model.config.attention_head_dim}."
        )
    mask = torch.ones(model.num_tokens, model.num_tokens).tril()
    masks = {f"blocks.{block}.attn_mask": mask for block in range(len(model.blocks))}
    return dict(model.state_dict()) | masks


def published_tarflow_name(model: TarFlowTransformer2DModel, dataset: str) -> str:
    """What a file of this model is called: `dataset_model_patch_width_blocks_layers_sigma.pth`."""
    config = model.config
    sizes = (config.patch_size, config.hidden_size, config.num_blocks, config.layers_per_block)
    noise = np.format_float_positional(config.noise_std, min_digits=2)
    return f"{dataset}_model_{'_'.join(map(str, sizes))}_{noise}.pth"


def _config(weights: Weights, in_channels: int, attention_head_dim: int) -> dict[str, Any]:
    indices = [match.groups() for match in map(_BLOCK.match, weights) if match]
    try:
        num_tokens, hidden_size = weights["blocks.0.pos_embed"].shape
        token_size = weights["blocks.0.proj_in.weight"].shape[1]
        outputs = weights["blocks.0.proj_out.weight"].shape[0]
        mlp_size = weights["blocks.0.attn_blocks.0.mlp.main.0.weight"].shape[0]
        classes = weights["blocks.0.class_embed"].shape[0] if "blocks.0.class_embed" in weights else 0
    except KeyError as error:
        raise ValueError(f"These weights are not a TarFlow's: {error} is missing.") from error
    except (IndexError, ValueError) as error:  # of other dimensions
        raise ValueError(f"These weights are not a TarFlow's: their shapes are others ({error}).") from error
    if not hidden_size:
        raise ValueError("These weights are not a TarFlow's: blocks.0.pos_embed is empty.")
    side, patch_size = isqrt(num_tokens), isqrt(token_size // in_channels)
    if side**2 != num_tokens or in_channels * patch_size**2 != token_size:
        raise ValueError(
            f"{num_tokens} tokens of {token_size} numbers are no square picture of {in_channels} channels in square "
            "patches; pass in_channels."
        )
    return {
        "sample_size": side * patch_size,
        "patch_size": patch_size,
        "in_channels": in_channels,
        "hidden_size": hidden_size,
        "num_blocks": count_of((int(block) for block, _ in indices), "blocks"),
        "layers_per_block": count_of((int(layer) for _, layer in indices if layer is not None), "layers"),
        "attention_head_dim": attention_head_dim,
        "mlp_ratio": mlp_size // hidden_size,
        "num_classes": classes,
        "volume_preserving": outputs == token_size,
    }
