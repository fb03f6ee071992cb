"""A picture and windows of drafts over it as one row, in one pass that gradients go through.

The row is prompt, final tokens, then the windows: each draft sees the prompt, the final tokens before its window's
front and the drafts of its own window before it, as in the decoding pass that it is from. So one pass gives the law at
the fixed point and the laws behind the drafts of many passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad
from transformers import Cache

from ..decoding import ImageTokenLayout
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.prompts import EncodedPrompt
from ..pipelines.target import attention_bias


class NoCache(Cache):
    """Keeps nothing: keys and values are those of the pass itself, and gradients go through them."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


@dataclass
class Hidden:
    """Final hidden states of a packed pass; R = B rows, or 2 B with guidance.

    Attributes:
        fixed: `[R, N, D]`: entry p predicts position p behind the final tokens before it.
        windows: `[R, K * W, D]`: entry k W + i predicts position `front + i + 1` of window k, behind its first i + 1
            drafts.
    """

    fixed: torch.Tensor
    windows: torch.Tensor


def packed_pass(
    pipe: SJDAutoRegressivePipeline,
    prompt: EncodedPrompt,
    layout: ImageTokenLayout,
    final: torch.Tensor,
    fronts: torch.Tensor,
    drafts: torch.Tensor,
) -> Hidden:
    """Run the transformer over pictures and windows of drafts.

    Args:
        pipe: of any family.
        prompt: R rows.
        layout: of the tokens.
        final: `[B, N]` int64 by position.
        fronts: `[B, K]` int64: the position of the first draft of each window.
        drafts: `[B, K, W]` int64.
    """
    copies, length = len(prompt.embeds) // len(final), prompt.embeds.shape[1]
    count = layout.num_tokens
    positions, visible = packed_layout(fronts, drafts.shape[-1], count)
    tokens = torch.cat([final[:, :-1], drafts.flatten(1)], 1)
    rows = [values.repeat(copies, *[1] * (values.dim() - 1)) for values in (tokens, positions, visible)]
    tokens, positions, visible = rows
    cells = layout.cells(count).to(positions.device)[positions]
    position_ids = pipe.image_position_ids(cells, prompt.position_ids[:, -1:], layout)
    embeds = torch.cat([prompt.embeds, pipe.embed_image_tokens(tokens).to(prompt.embeds.dtype)], 1)
    bias = attention_bias(_with_prompt(prompt.visible, visible), embeds.dtype)
    ids = torch.cat([prompt.position_ids, position_ids], 1)
    hidden = pipe.run_transformer(embeds, bias, ids, NoCache())
    end = length - 1 + count
    return Hidden(hidden[:, length - 1 : end], hidden[:, end:])


def packed_layout(fronts: torch.Tensor, window: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the image tokens of a row stand, and what each sees of the others.

    Args:
        fronts: `[B, K]` int64.
        window: W.
        count: N.

    Returns:
        `[B, S]` int64 positions and `[B, S, S]` bool, S = N - 1 + K W. Drafts after the image stand at its last
        position, and mean nothing.
    """
    batch, windows = fronts.shape
    fixed = torch.arange(count - 1, device=fronts.device)
    slots = torch.arange(window, device=fronts.device)
    places = (fronts[..., None] + slots).clamp(max=count - 1).flatten(1)  # [B, K W]
    positions = torch.cat([fixed.expand(batch, -1), places], 1)
    among_fixed = (fixed <= fixed[:, None]).expand(batch, -1, -1)
    before = (fixed < fronts[..., None]).repeat_interleave(window, 1)  # [B, K W, N - 1]
    index = torch.arange(windows * window, device=fronts.device)
    own = (index // window == index[:, None] // window) & (index <= index[:, None])
    after = torch.cat([before, own.expand(batch, -1, -1)], 2)
    return positions, torch.cat([pad(among_fixed, (0, windows * window)), after], 1)


def _with_prompt(prompt: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """What every token sees: `[R, P]` which prompt tokens there are, `[R, S, S]` -> `[R, P + S, P + S]` bool."""
    length = prompt.shape[1]
    index = torch.arange(length, device=prompt.device)
    itself = index == index[:, None]  # a padding token sees itself: no empty softmax
    within = (index <= index[:, None]) & prompt[:, None] | itself
    top = pad(within, (0, image.shape[-1]))
    return torch.cat([top, torch.cat([prompt[:, None].expand(-1, image.shape[1], -1), image], 2)], 1)
