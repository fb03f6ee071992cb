"""LlamaGen's and PAR's transformer (Sun et al. 2024, arXiv 2406.06525): of classes or texts, 2-D rotary positions."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from torch import nn

from ..decoding import CanvasCache, ImageTokenLayout
from ..ranges import Range

# The published sizes: name -> (layers, heads, hidden size).
LLAMAGEN_SIZES: dict[str, tuple[int, int, int]] = {
    "B": (12, 12, 768),
    "L": (24, 16, 1024),
    "XL": (36, 20, 1280),
    "XXL": (48, 24, 1536),
    "XXXL": (48, 40, 2560),
    "1B": (22, 32, 2048),
    "3B": (24, 32, 3200),
    "7B": (32, 32, 4096),
}
CONDITION = -1  # the position id of every token of the condition
_COUNT, _POSITIVE = Range(1, whole=True), Range(0, above=True)
_COUNTS = (
    "num_layers",
    "num_attention_heads",
    "hidden_size",
    "codebook_size",
    "sample_size",
    "caption_length",
    "parallel_tokens",
)
_COUNTS_OR_NONE = ("intermediate_size", "caption_channels", "num_classes")


class LlamaGenTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Predicts image tokens after a class label or a caption. The defaults are the published text-to-image XL.

    Args:
        num_layers: transformer blocks.
        num_attention_heads: attention heads.
        hidden_size: D, a multiple of 4 * num_attention_heads.
        intermediate_size: width of the feed-forward; None is 8/3 D rounded up to a multiple of 256.
        codebook_size: V.
        sample_size: rows and columns of the token grid.
        caption_channels: features per caption token for a text-conditional model, else None.
        caption_length: caption tokens.
        num_classes: classes of a class-conditional model, else None; exactly one of the two is given.
        rope_theta: base of the rotary frequencies.
        norm_eps: epsilon of the norms.
        parallel_tokens: n of a model that makes n tokens at once (PAR, Wang et al. 2024, arXiv 2412.15119), which has
            n - 1 learned tokens besides; 1 is LlamaGen.

    Raises:
        ValueError: a size is no integer of at least 1, the base or the epsilon no number above 0, or they do not go
            together.
    """

    _no_split_modules = ["LlamaGenBlock"]

    __module__ = "sjd_pipelines"  # what model_index.json will name, because files move

    @register_to_config
    def __init__(
        self,
        num_layers: int = 36,
        num_attention_heads: int = 20,
        hidden_size: int = 1280,
        intermediate_size: int | None = None,
        codebook_size: int = 16384,
        sample_size: int = 16,
        caption_channels: int | None = 2048,
        caption_length: int = 120,
        num_classes: int | None = None,
        rope_theta: float = 10000.0,
        norm_eps: float = 1e-5,
        parallel_tokens: int = 1,
    ):
        super().__init__()
        for name in _COUNTS:
            _COUNT.check(name, self.config[name])
        for name in ("rope_theta", "norm_eps"):
            _POSITIVE.check(name, self.config[name])
        for name in _COUNTS_OR_NONE:
            if self.config[name] is not None:
                _COUNT.check(name, self.config[name])
        if (caption_channels is None) == (num_classes is None):
            raise ValueError("Give exactly one of caption_channels (text) and num_classes (classes).")
        if hidden_size % (4 * num_attention_heads):
            raise ValueError(
                "hidden_size must be a multiple of 4 * num_attention_heads: rows and columns share a head."
            )
        ImageTokenLayout.in_regions(sample_size, sample_size, codebook_size, parallel_tokens)  # refuses what is uneven
        if intermediate_size is None:
            intermediate_size = -(-(8 * hidden_size // 3) // 256) * 256
        if num_classes is None:
            self.caption_embedding = CaptionEmbedding(caption_channels, hidden_size, caption_length)
        else:
            self.class_embedding = nn.Embedding(num_classes + 1, hidden_size)  # the last row is "no class"
        self.token_embedding = nn.Embedding(codebook_size, hidden_size)
        if parallel_tokens > 1:
            self.learned_embedding = nn.Embedding(parallel_tokens - 1, hidden_size)
        self.layers = nn.ModuleList(
            LlamaGenBlock(hidden_size, num_attention_heads, intermediate_size, norm_eps, index)
            for index in range(num_layers)
        )
        self.norm = RMSNorm(hidden_size, norm_eps)
        self.head = nn.Linear(hidden_size, codebook_size, bias=False)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids of image tokens, and after the vocabulary those of learned ones, `[R, Q]` int64 -> `[R, Q, D]`.

        By the modules, not by their weights: offloading brings weights to the device when a module is called.
        """
        if self.config.parallel_tokens == 1:
            return self.token_embedding(ids)
        size = self.config.codebook_size
        learned = self.learned_embedding((ids - size).clamp(min=0))
        return torch.where((ids < size)[..., None], self.token_embedding(ids.clamp(max=size - 1)), learned)

    def forward(
        self,
        embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        cache: CanvasCache | None = None,
    ) -> torch.Tensor:
        """Final hidden states, which `head` turns into logits.

        Args:
            embeds: `[R, Q, D]` embedded condition or image tokens.
            attention_mask: `[R, 1, Q, L]`, added to the scores: 0 where a query may look, -inf elsewhere (or bool).
            position_ids: `[R, Q]` int64 raster indices, `CONDITION` (-1) for condition and learned tokens.
            cache: where keys and values are written and read; None attends among the queries alone.

        Returns:
            `[R, Q, D]`.
        """
        head_size = self.config.hidden_size // self.config.num_attention_heads
        rotation = raster_rotation(position_ids, self.config.sample_size, head_size, self.config.rope_theta)
        hidden = embeds
        for layer in self.layers:
            hidden = layer(hidden, rotation, attention_mask, cache)
        return self.norm(hidden)


class CaptionEmbedding(nn.Module):
    """Caption features to hidden states, `[..., P, C]` -> `[..., P, D]`, and the features that mean no caption."""

    def __init__(self, channels: int, hidden_size: int, length: int):
        super().__init__()
        self.up = nn.Linear(channels, hidden_size, bias=False)
        self.down = nn.Linear(hidden_size, hidden_size, bias=False)
        # Never trained: the published files carry a fixed random array.
        self.register_buffer("unconditional", torch.zeros(length, channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.gelu(self.up(features), approximate="tanh"))


class LlamaGenBlock(nn.Module):
    """Attention and SwiGLU feed-forward, each after a norm and added to the stream."""

    def __init__(self, hidden_size: int, heads: int, intermediate_size: int, eps: float, index: int):
        super().__init__()
        self.attention_norm = RMSNorm(hidden_size, eps)
        self.attention = LlamaGenAttention(hidden_size, heads, index)
        self.feed_forward_norm = RMSNorm(hidden_size, eps)
        self.feed_forward = FeedForward(hidden_size, intermediate_size)

    def forward(
        self,
        hidden: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor,
        cache: CanvasCache | None,
    ) -> torch.Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), rotation, attention_mask, cache)
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))


class LlamaGenAttention(nn.Module):
    """Multi-head attention with rotated queries and keys.

    Attributes:
        attend: what it calls; training has one that takes less time on a CPU.
    """

    attend = staticmethod(nn.functional.scaled_dot_product_attention)

    def __init__(self, hidden_size: int, heads: int, index: int):
        super().__init__()
        self.heads = heads
        self.index = index
        self.to_qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.to_out = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(
        self,
        hidden: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor,
        cache: CanvasCache | None,
    ) -> torch.Tensor:
        # [R, Q, 3 D] -> three of [R, heads, Q, head size]
        query, key, value = self.to_qkv(hidden).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = rotate(query, *rotation), rotate(key, *rotation)
        if cache is not None:
            key, value = cache.update(key, value, self.index)
        attended = self.attend(query, key, value, attn_mask=attention_mask)
        return self.to_out(attended.transpose(1, 2).flatten(2))  # [R, heads, Q, head size] -> [R, Q, D]


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(hidden)) * self.up(hidden))


class RMSNorm(nn.Module):
    """Norm in float32, rounded before it is scaled, as the models were trained (Zhang & Sennrich 2019)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        wide = hidden.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return wide.to(hidden.dtype) * self.weight


def raster_rotation(
    position_ids: torch.Tensor, columns: int, head_size: int, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the row (first half of a head) and the column (second half) of each token.

    At the condition both are zero, not the identity: its rotated queries and keys vanish. The published models were
    trained that way, so that image tokens weigh all visible condition tokens alike.

    Args:
        position_ids: `[R, Q]` int64 raster indices, `CONDITION` (-1) for the condition.
        columns: tokens per row.
        head_size: a multiple of 4.
        theta: base of the frequencies.

    Returns:
        Two `[R, 1, Q, head_size / 2]` float32.
    """
    half = head_size // 2
    exponents = torch.arange(0, half, 2, device=position_ids.device).float() / half
    frequencies = 1.0 / theta**exponents  # [head_size / 4]
    cells = torch.stack([torch.div(position_ids, columns, rounding_mode="floor"), position_ids % columns], -1)
    angles = (cells[..., None] * frequencies).flatten(-2)[:, None]  # [R, Q, 2, head_size / 4] -> [R, 1, Q, half]
    condition = (position_ids == CONDITION)[:, None, :, None]
    return angles.cos().masked_fill(condition, 0.0), angles.sin().masked_fill(condition, 0.0)


def rotate(states: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotate neighbouring pairs of channels of `[R, heads, Q, head_size]` by `raster_rotation`, in float32."""
    even, odd = states.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1)
    return turned.flatten(-2).to(states.dtype)
