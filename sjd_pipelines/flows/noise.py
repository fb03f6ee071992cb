"""Position-addressed normal noise: a picture's latents are a function of its seed alone."""

import torch

from ..decoding.noise import PositionNoise, Purpose


def normal_noise(seeds: list[int], num_tokens: int, token_size: int) -> torch.Tensor:
    """Standard normal numbers, one per (seed, token position in raster order, channel).

    Made on the CPU, so that they are the same wherever they go; they do not change with the batch.

    Args:
        seeds: one integer in [0, 2**64) per picture.
        num_tokens: T.
        token_size: D.

    Returns:
        `[B, T, D]` float64; rounded to float32 they are the same under any mathematics library.
    """
    noise = PositionNoise(seeds)
    positions = torch.arange(num_tokens).expand(len(seeds), -1)
    words = noise.uniforms(positions, Purpose.SAMPLE, 0, 2 * token_size).double()  # [B, T, 2 D], 24 bits each
    high, low = words.unflatten(-1, (token_size, 2)).unbind(-1)
    return torch.special.ndtri(high + low * 2.0**-24 + 2.0**-49)  # 48 bits, in the open interval (0, 1)
