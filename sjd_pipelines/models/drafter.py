"""A draft model of one layer, which guesses the target's next hidden state from its last one (EAGLE)."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn.functional import embedding

from .llamagen import LlamaGenBlock, RMSNorm, raster_rotation


class EagleDrafter(ModelMixin, ConfigMixin):
    """EAGLE (Li et al. 2024, arXiv 2401.15077), with rows and columns of the picture in its rotary positions.

    Embedding and head are the target's own. What came before the picture reaches it through the target's states only.

    Args:
        hidden_size: D of the target, a multiple of 4 * num_attention_heads.
        num_attention_heads: attention heads.
        intermediate_size: width of the feed-forward.
        rope_theta: base of the rotary frequencies.
        norm_eps: epsilon of the norms.
    """

    __module__ = "sjd_pipelines"  # what model_index.json will name, because files move

    @register_to_config
    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        intermediate_size: int,
        rope_theta: float = 10000.0,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        if hidden_size % (4 * num_attention_heads):
            raise ValueError(
                "hidden_size must be a multiple of 4 * num_attention_heads: rows and columns share a head."
            )
        self.fuse = nn.Linear(2 * hidden_size, hidden_size)
        self.layer = LlamaGenBlock(hidden_size, num_attention_heads, intermediate_size, norm_eps, index=0)
        self.norm = RMSNorm(hidden_size, norm_eps)

    def forward(
        self,
        features: torch.Tensor,
        embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        rotations: torch.Tensor,
        cache=None,
    ) -> torch.Tensor:
        """Guess the target's final hidden state at each token.

        Args:
            features: `[R, Q, D]` hidden states (the target's or guessed ones) at the tokens before.
            embeds: `[R, Q, D]` embeddings of the tokens.
            attention_mask: `[R, 1, Q, L]`, bool or what is added to the scores.
            position_ids: `[R, Q]` int64 raster indices of the tokens.
            rotations: of all raster indices, see `rotations`.
            cache: where keys and values are written and read (`update`); None attends among the queries alone.

        Returns:
            `[R, Q, D]`, to be turned into logits by the target's head.
        """
        rotation = embedding(position_ids, rotations)[:, None].chunk(2, -1)  # two [R, 1, Q, head size / 2]
        hidden = self.fuse(torch.cat([embeds, features], -1))
        return self.norm(self.layer(hidden, rotation, attention_mask, cache))

    def rotations(self, length: int, columns: int, device: torch.device | str) -> torch.Tensor:
        """Cosines and sines of the first `length` tokens of a picture, `columns` in a row: `[length, head size]`."""
        places = torch.arange(length, device=device)[None]
        head_size = self.config.hidden_size // self.config.num_attention_heads
        return torch.cat(raster_rotation(places, columns, head_size, self.config.rope_theta), -1)[0, 0]
