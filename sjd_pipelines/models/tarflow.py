"""TarFlow (Zhai et al. 2024, arXiv 2412.06329): a normalizing flow of causal transformers over image patches."""

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn
from torch.nn import functional as F

PRIOR_RATE = 0.1  # of the moving average that a volume-preserving model's prior variance is
_INITIAL_STD = 0.01  # of positions and classes


@dataclass
class TarFlowEncoderOutput(BaseOutput):
    """Pictures as noise.

    Attributes:
        latents: `[B, T, D]`, standard normal under the model (of variance `var` where it is volume-preserving).
        log_det: `[B]`, log-determinant of picture to noise, per dimension (nats).
        inputs: `[B, T, D]` of every block, in the block's own order, the picture's patches first.
    """

    latents: torch.Tensor
    log_det: torch.Tensor
    inputs: list[torch.Tensor]


class FlowCache:
    """Keys and values of the inputs of one block, preallocated; every block of a flow can use the same one.

    Args:
        layers: transformer layers of a block.
        rows: pictures, guidance rows included.
        heads: attention heads.
        length: inputs, at most.
        head_dim: channels of a head.
        dtype: of keys and values.
        device: where they live.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        length: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        shape = (2, rows, heads, length, head_dim)  # keys, values
        self.layers = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        hidden = torch.full((length, length), float("-inf"), dtype=dtype, device=device)
        self.bias = hidden.triu(1)  # [length, length]: 0 where an input may be seen

    @property
    def rows(self) -> int:
        return self.layers[0].shape[1]

    def update(self, layer: int, keys_values: torch.Tensor, start: int) -> torch.Tensor:
        """Write `[2, R, heads, Q, d]` at inputs `start` to `start + Q - 1`; returns all up to there."""
        stop = start + keys_values.shape[3]
        self.layers[layer][..., start:stop, :] = keys_values
        return self.layers[layer][..., :stop, :]

    def keep(self, rows: torch.Tensor) -> None:
        """Let all rows but these `[R']` go."""
        for layer, keys_values in enumerate(self.layers):  # one after the other: no second cache beside the first
            self.layers[layer] = keys_values[:, rows]


class TarFlowTransformer2DModel(ModelMixin, ConfigMixin):
    """K affine autoregressive blocks that turn a picture into noise, and one token at a time back.

    In each block a causal transformer reads the patches `x` and gives every patch a scale and a shift that depend on
    those before it: `z_t = (x_t - u_t) exp(-s_t)`. Every other block runs from the last patch to the first. Names of
    the weights are those of the published files.

    Args:
        sample_size: pixels per side.
        patch_size: pixels per side of a patch: T = (sample_size / patch_size)^2, D = in_channels * patch_size^2.
        in_channels: channels of a picture.
        hidden_size: C, a multiple of `attention_head_dim`.
        num_blocks: K.
        layers_per_block: transformer layers of a block.
        attention_head_dim: channels of a head.
        mlp_ratio: width of the feed-forward layers in units of C.
        num_classes: 0 for an unconditional model.
        volume_preserving: shifts only; the variance of the noise is then learned as a moving average.
        noise_std: standard deviation of the noise on the training pictures, whose range is [-1, 1]; `denoise` takes
            it off again.
    """

    __module__ = "sjd_pipelines"  # what model_index.json will name, because files move

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 3,
        hidden_size: int = 64,
        num_blocks: int = 4,
        layers_per_block: int = 2,
        attention_head_dim: int = 64,
        mlp_ratio: int = 4,
        num_classes: int = 0,
        volume_preserving: bool = False,
        noise_std: float = 0.1,
    ):
        super().__init__()
        if sample_size % patch_size:
            raise ValueError(f"sample_size must be a multiple of patch_size {patch_size}, got {sample_size}.")
        if sample_size < 2 * patch_size:  # the first patch of a block is given: nothing would be left to solve
            raise ValueError(f"sample_size must be at least twice patch_size {patch_size}, got {sample_size}.")
        if hidden_size % attention_head_dim:
            raise ValueError(
                f"hidden_size must be a multiple of attention_head_dim {attention_head_dim}, got {hidden_size}."
            )
        self.num_tokens = (sample_size // patch_size) ** 2
        self.token_size = in_channels * patch_size**2
        self.blocks = nn.ModuleList(
            TarFlowBlock(
                self.num_tokens,
                self.token_size,
                hidden_size,
                layers_per_block,
                hidden_size // attention_head_dim,
                mlp_ratio,
                num_classes,
                volume_preserving,
            )
            for _ in range(num_blocks)
        )
        self.register_buffer("var", torch.ones(self.num_tokens, self.token_size))

    @property
    def state_dtype(self) -> torch.dtype:
        """Of pictures and noise on their way: at least float32, whatever the weights are in."""
        return torch.promote_types(self.dtype, torch.float32)

    def patchify(self, pixels: torch.Tensor) -> torch.Tensor:
        """`[B, channels, S, S]` -> `[B, T, D]`: patches in raster order, a patch by channel, row and column."""
        return F.pixel_unshuffle(pixels, self.config.patch_size).flatten(2).transpose(1, 2)

    def unpatchify(self, tokens: torch.Tensor) -> torch.Tensor:
        """The reverse of `patchify`."""
        side = self.config.sample_size // self.config.patch_size
        return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (side, side)), self.config.patch_size)

    def order(self, block: int, tokens: torch.Tensor) -> torch.Tensor:
        """Raster order to the order of a block, and back: `[B, T, D]`."""
        return tokens.flip(1) if block % 2 else tokens

    def condition(self, block: int, labels: torch.Tensor | None, rows: int) -> torch.Tensor | None:
        """What a block adds to its inputs for a class.

        Args:
            block: index, 0 next to the picture.
            labels: `[B]` int64; negative, or None for all: no class, the mean of all classes.
            rows: B.

        Returns:
            `[B, 1, C]`, or None for an unconditional model.
        """
        if not self.config.num_classes:
            return None
        table = self.blocks[block].class_embed  # [classes, 1, C]
        absent = table.mean(0).expand(rows, 1, -1)
        if labels is None:
            return absent
        return torch.where((labels < 0)[:, None, None], absent, table[labels.clamp(min=0)])

    def affine(
        self,
        block: int,
        inputs: torch.Tensor,
        condition: torch.Tensor | None = None,
        start: int = 0,
        cache: FlowCache | None = None,
        sharpness: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the inputs say of the patches that follow them.

        Args:
            block: index, 0 next to the picture.
            inputs: `[R, Q, D]`, patches `start` to `start + Q - 1` in the order of the block.
            condition: `[R, 1, C]`, see `condition`.
            start: patches in front of them; their keys and values are in `cache`.
            cache: receives keys and values; None where `start` is 0.
            sharpness: `[R, 1, 1, 1]`, factor of the attention logits, 1 / temperature.

        Returns:
            log scale and shift of patches `start + 1` to `start + Q`, two `[R, Q, D]` of at least float32.
        """
        module = self.blocks[block]
        stop = start + inputs.shape[1]
        if block % 2:  # the table is in raster order
            positions = module.pos_embed[self.num_tokens - stop : self.num_tokens - start].flip(0)
        else:
            positions = module.pos_embed[start:stop]
        hidden = module.proj_in(inputs.to(positions.dtype)) + positions
        if condition is not None:
            hidden = hidden + condition
        for layer, attention_block in enumerate(module.attn_blocks):
            hidden = attention_block(hidden, layer, start, cache, sharpness)
        output = module.proj_out(hidden).to(inputs.dtype)
        if self.config.volume_preserving:
            return torch.zeros_like(output), output
        log_scale, shift = output.chunk(2, -1)
        return log_scale, shift

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor | None = None) -> TarFlowEncoderOutput:
        """`encode`."""
        return self.encode(pixels, labels)

    def encode(self, pixels: torch.Tensor, labels: torch.Tensor | None = None) -> TarFlowEncoderOutput:
        """Pictures to noise, one pass per block.

        Args:
            pixels: `[B, channels, S, S]` in about [-1, 1].
            labels: `[B]` int64; see `condition`.
        """
        tokens = self.patchify(pixels.to(self.state_dtype))
        log_det, inputs = tokens.new_zeros(len(tokens)), []
        for block in range(len(self.blocks)):
            ordered = self.order(block, tokens)
            inputs.append(ordered)
            condition = self.condition(block, labels, len(tokens))
            log_scale, shift = self.affine(block, ordered[:, :-1], condition)
            tokens = torch.cat([ordered[:, :1], (ordered[:, 1:] - shift) * torch.exp(-log_scale)], 1)
            tokens = self.order(block, tokens)
            log_det = log_det - log_scale.sum((1, 2)) / tokens[0].numel()
        return TarFlowEncoderOutput(latents=tokens, log_det=log_det, inputs=inputs)

    def log_prob(self, pixels: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Log density of pictures with noise on them, per dimension (nats): `[B]`."""
        encoded = self.encode(pixels, labels)
        var = self.var.to(encoded.latents.dtype)
        return encoded.log_det - 0.5 * (encoded.latents.square() / var + (2 * torch.pi * var).log()).mean((1, 2))

    @torch.no_grad()
    def update_prior(self, latents: torch.Tensor) -> None:
        """Move the prior's variance towards that of a batch `[B, T, D]`; for training volume-preserving models."""
        self.var.lerp_(latents.square().mean(0).to(self.var.dtype), PRIOR_RATE)

    def denoise(self, pixels: torch.Tensor, labels: torch.Tensor | None = None, strength: float = 1.0) -> torch.Tensor:
        """Take off the noise of the training pictures: Tweedie's formula, `x + sigma^2 grad log p(x)`.

        Runs a backward pass, inside `no_grad` as well.

        Args:
            pixels: `[B, channels, S, S]`.
            labels: `[B]` int64; see `condition`.
            strength: factor of the step; the published pictures were made with 0.9 to 1.4.

        Returns:
            Pictures clipped to [-1, 1].
        """
        with torch.inference_mode(False), torch.enable_grad():
            noisy = pixels.to(self.state_dtype).clone().requires_grad_()
            density = self.log_prob(noisy, labels).sum() * noisy[0].numel()
            (score,) = torch.autograd.grad(density, noisy)
        return (noisy.detach() + strength * self.config.noise_std**2 * score).clamp(-1, 1)


class TarFlowBlock(nn.Module):
    """The causal transformer of one block; no norm behind its layers, and an output that starts at zero."""

    def __init__(
        self,
        num_tokens: int,
        token_size: int,
        hidden_size: int,
        layers: int,
        heads: int,
        mlp_ratio: int,
        num_classes: int,
        volume_preserving: bool,
    ):
        super().__init__()
        self.proj_in = nn.Linear(token_size, hidden_size)
        self.pos_embed = nn.Parameter(torch.randn(num_tokens, hidden_size) * _INITIAL_STD)
        if num_classes:
            self.class_embed = nn.Parameter(torch.randn(num_classes, 1, hidden_size) * _INITIAL_STD)
        self.attn_blocks = nn.ModuleList(TarFlowLayer(hidden_size, heads, mlp_ratio) for _ in range(layers))
        self.proj_out = nn.Linear(hidden_size, token_size * (1 if volume_preserving else 2))
        nn.init.zeros_(self.proj_out.weight)


class TarFlowLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    def __init__(self, hidden_size: int, heads: int, mlp_ratio: int):
        super().__init__()
        self.attention = TarFlowAttention(hidden_size, heads)
        self.mlp = TarFlowMLP(hidden_size, mlp_ratio)

    def forward(
        self,
        hidden: torch.Tensor,
        layer: int,
        start: int,
        cache: FlowCache | None,
        sharpness: torch.Tensor | None,
    ) -> torch.Tensor:
        hidden = hidden + self.attention(hidden, layer, start, cache, sharpness)
        return hidden + self.mlp(hidden)


class TarFlowAttention(nn.Module):
    """Causal attention; an input sees itself and those before it."""

    def __init__(self, hidden_size: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = WideLayerNorm(hidden_size)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(
        self,
        hidden: torch.Tensor,
        layer: int,
        start: int,
        cache: FlowCache | None,
        sharpness: torch.Tensor | None,
    ) -> torch.Tensor:
        count = hidden.shape[1]
        # [R, Q, 3 C] -> [3, R, heads, Q, d]
        projected = self.qkv(self.norm(hidden)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, keys_values = projected[0], projected[1:]
        if cache is not None:
            keys_values = cache.update(layer, keys_values, start)
        key, value = keys_values.unbind()
        if sharpness is not None:
            query = query * sharpness
        bias = None
        if start and count > 1:
            bias = cache.bias[start : start + count, : start + count]
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, is_causal=start == 0 and count > 1
        )
        return self.proj(attended.transpose(1, 2).flatten(2))  # [R, heads, Q, d] -> [R, Q, C]


class TarFlowMLP(nn.Module):
    """The feed-forward layer, its norm in front."""

    def __init__(self, hidden_size: int, ratio: int):
        super().__init__()
        self.norm = WideLayerNorm(hidden_size)
        self.main = nn.Sequential(
            nn.Linear(hidden_size, ratio * hidden_size), nn.GELU(), nn.Linear(ratio * hidden_size, hidden_size)
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.main(self.norm(hidden))


class WideLayerNorm(nn.LayerNorm):
    """Layer norm in at least float32, so that half precision is safe and float64 stays float64."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        if wide == self.weight.dtype == hidden.dtype:
            return super().forward(hidden)
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        return F.layer_norm(hidden.to(wide), self.normalized_shape, weight, bias, self.eps).to(hidden.dtype)
