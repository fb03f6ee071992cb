"""Attention of whole sequences, the way it trains fastest on each device: causal, or in groups.

On a CPU core the fused kernel's backward pass is slow: blocks of queries that skip the keys they cannot see, with
scores in the dtype of the matrix products, take half the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface

NAME = "sjd_causal"
_BLOCKS = 4


def causal(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention of rows without padding, in the signature of transformers' attention functions.

    Args:
        query: `[B, H, T, D]`, as `key` and `value`.
        attention_mask: not looked at.
        scaling: of the scores.

    Returns:
        `[B, T, H, D]`, and no weights.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)
    if query.device.type == "cpu":
        length = query.shape[2]
        future = torch.full((length, length), float("-inf"), dtype=value.dtype, device=value.device).triu(1)
        result = blockwise(query * scaling, key, value, future, range(1, length + 1))
    else:
        result = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    return result.transpose(1, 2).contiguous(), None


def blockwise(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, ends: Sequence[int]
) -> torch.Tensor:
    """Attention of scaled queries, a block of them at a time: `[B, H, T, D]`, as query, key and value.

    Args:
        bias: `[T, T]`, added to the scores.
        ends: T of them, which never fall: query t sees the keys before `ends[t]`.
    """
    length, blocks = query.shape[2], []
    size = -(-length // _BLOCKS)
    for start in range(0, length, size):
        stop = min(start + size, length)
        end = ends[stop - 1]
        scores = query[:, :, start:stop] @ key[:, :, :end].transpose(-1, -2) + bias[start:stop, :end]
        blocks.append(scores.softmax(-1) @ value[:, :, :end])  # [B, H, stop - start, D]
    return torch.cat(blocks, 2)


class PrefixAttention:
    """Attention in which every query sees a prefix, in the place of `scaled_dot_product_attention`.

    Args:
        ends: `[T]` int64, which never falls: query t sees the keys before `ends[t]`.
    """

    def __init__(self, ends: torch.Tensor) -> None:
        self.ends = ends.tolist()

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor
    ) -> torch.Tensor:
        """`[B, H, T, D]`, as query, key and value; `attn_mask` `[1, 1, T, T]` is added to the scores."""
        query, key = query.to(value.dtype), key.to(value.dtype)
        if query.device.type != "cpu":
            return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask.to(value.dtype))
        return blockwise(query * query.shape[-1] ** -0.5, key, value, attn_mask[0, 0].to(value.dtype), self.ends)


AttentionInterface.register(NAME, causal)
