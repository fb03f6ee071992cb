"""Attention of models whose queries have more heads than keys and values, without copies of the latter."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sjd_grouped"


def group_queries(network: PreTrainedModel) -> None:
    """Let a language model that attends by scaled dot product and has grouped queries attend by `grouped`."""
    config = network.config
    if config.num_key_value_heads < config.num_attention_heads and config._attn_implementation == "sdpa":
        network.set_attn_implementation(NAME)


def grouped(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot product in the signature of transformers' attention functions.

    The heads of a group become further queries of the one head that they share, which every kernel takes; that of
    transformers repeats keys and values in every layer, because kernels for grouped heads take no mask on CUDA.

    Args:
        module: the layer.
        query: `[R, G * H, Q, D]`.
        key: `[R, H, L, D]`, as `value`.
        attention_mask: `[R, 1, Q, L]`; whatever has another goes the way of transformers.
        dropout: the same.
        scaling: of the scores.
        **others: what the way of transformers takes besides.

    Returns:
        `[R, Q, G * H, D]`, and no weights.
    """
    if attention_mask is None or attention_mask.shape[1] != 1 or dropout:
        options = {"dropout": dropout, "scaling": scaling, **others}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows, heads, count, size = query.shape
    groups = heads // key.shape[1]
    folded = query.reshape(rows, key.shape[1], groups * count, size)
    mask = attention_mask.repeat(1, 1, groups, 1)
    attended = functional.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return attended.view(rows, heads, count, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, grouped)
AttentionMaskInterface.register(NAME, sdpa_mask)
