"""One call of a transformers language model on embeddings, a ready attention bias and a canvas cache."""

import torch
from torch import nn

from ..decoding import CanvasCache, cache_keyword


def final_hidden_states(
    language_model: nn.Module,
    embeds: torch.Tensor,
    mask: torch.Tensor,
    position_ids: torch.Tensor,
    cache: CanvasCache,
) -> torch.Tensor:
    """`[R, Q, D]`, `[R, 1, Q, L]` bias, `[R, Q]` -> `[R, Q, D]`; a 4-D mask is taken by the library as it is."""
    return language_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=position_ids,
        use_cache=True,
        **{cache_keyword(): cache},
    ).last_hidden_state
