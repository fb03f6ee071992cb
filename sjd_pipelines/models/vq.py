"""VQ tokenizers of published models as diffusers' `VQModel`: configuration and weights, in both directions.

Three ways of naming the same VQGAN network (Esser et al. 2021, arXiv 2012.09841) are in use: LlamaGen's, that of
taming-transformers, which Chameleon follows, and that of transformers' Janus, which has taming's names and LlamaGen's
order and codebook. They are listed module by module, so that one table serves both ways.
"""

from collections.abc import Iterator

import torch
from diffusers import VQModel
from torch import nn

Weights = dict[str, torch.Tensor]
_CODES_USED = 65536  # length of the usage statistics in a LlamaGen file, which nothing reads at inference


def check_weights(model: nn.Module, weights: Weights, kind: str) -> None:
    """Raise `ValueError` for the first weight that does not fit the network which was shaped after them."""
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        shapes = [tuple(one[name].shape) if name in one else None for one in (weights, own)]
        if shapes[0] != shapes[1]:
            given, fitting = (
                "none" if shape is None else " x ".join(map(str, shape)) or "a number" for shape in shapes
            )
            raise ValueError(
                f"These weights do not fit {kind} of their own shape: {name[:100]!r} should be {fitting}, got {given}."
            )


def render_codes(vq_model: VQModel, grid: torch.Tensor) -> torch.Tensor:
    """`[B, rows, columns]` codebook ids -> `[B, 3, H, W]` pixels in about [-1, 1]."""
    shape = (*grid.shape, vq_model.quantize.embedding.embedding_dim)
    return vq_model.decode(grid.flatten(), force_not_quantize=True, shape=shape).sample


def render_janus_codes(vq_model: nn.Module, grid: torch.Tensor) -> torch.Tensor:
    """`render_codes` for transformers' `JanusVQVAE`, whose own `decode_image_tokens` takes whole pictures only."""
    codes = nn.functional.normalize(vq_model.quantize.embedding(grid), dim=-1)  # [B, r, c, E]
    return vq_model.decoder(vq_model.post_quant_conv(codes.permute(0, 3, 1, 2)))


def vq_dialect(weights: Weights) -> str:
    """Which dialect the names of `weights` are in: `llamagen` or `taming`. Raises `ValueError` for neither."""
    if "decoder.conv_blocks.0.res.0.conv1.weight" in weights:
        return "llamagen"
    if "decoder.up.0.block.0.conv1.weight" in weights:
        return "taming"
    raise ValueError("These weights are not a VQGAN's: neither decoder.conv_blocks nor decoder.up is among them.")


def vq_model_from_published(weights: Weights, dialect: str | None = None) -> VQModel:
    """Build a `VQModel` from a published state dict; its shape is read from the weights.

    LlamaGen and Janus normalise their codebook at every look-up; here the normalised codebook is stored instead.

    Args:
        weights: names in any dialect, without a wrapper.
        dialect: `llamagen`, `taming` or `janus`; None tells the first two by their names.

    Raises:
        ValueError: names or shapes are not a VQGAN's.
    """
    dialect = dialect or vq_dialect(weights)
    config = _config(weights, dialect)
    model = VQModel(**config)
    renamed = dict(_rename(weights, model.config, dialect, published_to_diffusers=True))
    if dialect != "taming":
        renamed["quantize.embedding.weight"] = nn.functional.normalize(renamed["quantize.embedding.weight"], dim=-1)
    check_weights(model, renamed, "a VQGAN")
    model.load_state_dict(renamed)
    return model.eval()


def published_vq_weights(model: VQModel, dialect: str) -> Weights:
    """The reverse of `vq_model_from_published`; a LlamaGen codebook stays normalised, which its code does anyway."""
    weights = dict(_rename(model.state_dict(), model.config, dialect, published_to_diffusers=False))
    if dialect == "llamagen":
        weights["quantize.codebook_used"] = torch.zeros(_CODES_USED, dtype=torch.float32)
    return weights


def _config(weights: Weights, dialect: str) -> dict:
    down = "encoder.conv_blocks.{}.res.{}" if dialect == "llamagen" else "encoder.down.{}.block.{}"
    attention = "encoder.conv_blocks.{}.attn.0" if dialect == "llamagen" else "encoder.down.{}.attn.0"
    middle = "encoder.mid.1" if dialect == "llamagen" else "encoder.mid.attn_1"
    levels = _count(weights, lambda level: f"{down.format(level, 0)}.conv1.weight")
    with_attention = [f"{attention.format(level)}.q.weight" in weights for level in range(levels)]
    channels = [weights[f"{down.format(level, 0)}.conv2.weight"].shape[0] for level in range(levels)]
    codebook_size, code_channels = weights["quantize.embedding.weight"].shape
    return {
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "out_channels": weights["decoder.conv_out.weight"].shape[0],
        "down_block_types": tuple("AttnDownEncoderBlock2D" if yes else "DownEncoderBlock2D" for yes in with_attention),
        "up_block_types": tuple("AttnUpDecoderBlock2D" if yes else "UpDecoderBlock2D" for yes in with_attention[::-1]),
        "block_out_channels": tuple(channels),
        "layers_per_block": _count(weights, lambda block: f"{down.format(0, block)}.conv1.weight"),
        "latent_channels": weights["post_quant_conv.weight"].shape[0],
        "num_vq_embeddings": codebook_size,
        "vq_embed_dim": code_channels,
        "mid_block_add_attention": f"{middle}.q.weight" in weights,
        "lookup_from_codebook": True,
    }


def _count(weights: Weights, name) -> int:
    count = 0
    while name(count) in weights:
        count += 1
    return count


def _rename(
    weights: Weights, config, dialect: str, published_to_diffusers: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Renamed weights; whatever the table does not list (losses, statistics) is left out."""
    attentions = {}
    table = {}
    for published, diffusers, kind in _modules(config, dialect):
        source, target = (published, diffusers) if published_to_diffusers else (diffusers, published)
        for ours, theirs in _PARTS[kind]:
            part, renamed = (ours, theirs) if published_to_diffusers else (theirs, ours)
            table[f"{source}{part}"] = f"{target}{renamed}"
            attentions[f"{source}{part}"] = kind == "attention" and "norm" not in part
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        if module not in table:
            continue
        if attentions[module] and leaf == "weight":
            # A 1x1 convolution [C, C, 1, 1] there, a linear layer [C, C] in diffusers
            tensor = tensor.flatten(1) if published_to_diffusers else tensor[:, :, None, None]
        yield f"{table[module]}.{leaf}", tensor


_PARTS = {
    "plain": (("", ""),),
    "residual": (
        (".norm1", ".norm1"),
        (".conv1", ".conv1"),
        (".norm2", ".norm2"),
        (".conv2", ".conv2"),
        (".nin_shortcut", ".conv_shortcut"),
    ),
    "attention": (
        (".norm", ".group_norm"),
        (".q", ".to_q"),
        (".k", ".to_k"),
        (".v", ".to_v"),
        (".proj_out", ".to_out.0"),
    ),
}


def _modules(config, dialect: str) -> Iterator[tuple[str, str, str]]:
    """`(published name, diffusers name, kind)` of every module."""
    levels = len(config.block_out_channels)
    tamed = dialect != "llamagen"  # its names
    for name in ("quantize.embedding", "quant_conv", "post_quant_conv"):
        yield name, name, "plain"
    for side in ("encoder", "decoder"):
        yield f"{side}.conv_in", f"{side}.conv_in", "plain"
        yield f"{side}.norm_out", f"{side}.conv_norm_out", "plain"
        yield f"{side}.conv_out", f"{side}.conv_out", "plain"
        first, attention, second = ("block_1", "attn_1", "block_2") if tamed else ("0", "1", "2")
        yield f"{side}.mid.{first}", f"{side}.mid_block.resnets.0", "residual"
        yield f"{side}.mid.{attention}", f"{side}.mid_block.attentions.0", "attention"
        yield f"{side}.mid.{second}", f"{side}.mid_block.resnets.1", "residual"
    for level in range(levels):
        # All count a decoder's levels from the smallest grid, as diffusers does, but taming, from the largest
        up = levels - 1 - level if dialect == "taming" else level
        encoder = f"encoder.down.{level}" if tamed else f"encoder.conv_blocks.{level}"
        decoder = f"decoder.up.{up}" if tamed else f"decoder.conv_blocks.{up}"
        block = "block" if tamed else "res"
        for index in range(config.layers_per_block):
            yield f"{encoder}.{block}.{index}", f"encoder.down_blocks.{level}.resnets.{index}", "residual"
            yield f"{encoder}.attn.{index}", f"encoder.down_blocks.{level}.attentions.{index}", "attention"
        for index in range(config.layers_per_block + 1):
            yield f"{decoder}.{block}.{index}", f"decoder.up_blocks.{level}.resnets.{index}", "residual"
            yield f"{decoder}.attn.{index}", f"decoder.up_blocks.{level}.attentions.{index}", "attention"
        yield f"{encoder}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv", "plain"
        yield f"{decoder}.upsample.conv", f"decoder.up_blocks.{level}.upsamplers.0.conv", "plain"
