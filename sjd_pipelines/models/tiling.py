"""Large pictures in overlapping tiles of tokens, so that the decoder's activations are those of one tile.

Attention and group norms of a VQGAN decoder look at the whole picture, here at the whole tile: tiles differ a little
in tone from the picture in one piece, and blend into each other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tiling:
    """How a grid of tokens is cut.

    Attributes:
        tile: tokens per side of a tile.
        overlap: tokens that neighbouring tiles share, at most half a tile. A quarter of them is cut off at either
            edge, where a tile lacks its surroundings; the two tiles are blended over the half in the middle.
    """

    tile: int = 32
    overlap: int = 8

    def __post_init__(self):
        if not isinstance(self.tile, int) or isinstance(self.tile, bool) or self.tile < 2:
            raise ValueError(f"tile must be an integer of at least 2 tokens, got {self.tile!r}.")
        if not isinstance(self.overlap, int) or not 1 <= self.overlap <= self.tile // 2:
            raise ValueError(f"overlap must be an integer in [1, tile / 2 = {self.tile // 2}], got {self.overlap!r}.")


def render_tiled(render: Callable[[torch.Tensor], torch.Tensor], grid: torch.Tensor, tiling: Tiling) -> torch.Tensor:
    """Render a grid that may be larger than a tile.

    Args:
        render: `[B, r, c]` codebook ids -> `[B, 3, r * scale, c * scale]` pixels, for any r and c.
        grid: `[B, rows, columns]` int64.
        tiling: a grid that fits into one tile is rendered as it is.

    Returns:
        `[B, 3, rows * scale, columns * scale]`.
    """
    if max(grid.shape[1:]) <= tiling.tile:
        return render(grid)
    (high, tops), (wide, lefts) = (_cut(size, tiling) for size in grid.shape[1:])
    picture = None
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            pixels = render(grid[:, top : top + high, left : left + wide])
            if picture is None:
                scale = pixels.shape[-1] // wide
                shape = (*pixels.shape[:2], grid.shape[1] * scale, grid.shape[2] * scale)
                picture = torch.zeros(shape, dtype=torch.float32, device=pixels.device)
                vertical, horizontal = (
                    _shares(starts, length, size, tiling.overlap, scale).to(pixels.device)
                    for starts, length, size in ((tops, high, grid.shape[1]), (lefts, wide, grid.shape[2]))
                )
            down, right = slice(top * scale, (top + high) * scale), slice(left * scale, (left + wide) * scale)
            picture[..., down, right] += pixels * vertical[row, down, None] * horizontal[column, right]
    return picture.to(pixels.dtype)


def _cut(size: int, tiling: Tiling) -> tuple[int, list[int]]:
    """Length of the tiles along an axis of `size` tokens, all alike, and where they start."""
    length = min(tiling.tile, size)
    return length, [*range(0, size - length, tiling.tile - tiling.overlap), size - length]


def _shares(starts: list[int], length: int, size: int, overlap: int, scale: int) -> torch.Tensor:
    """`[tiles, size * scale]`: how much each tile counts at each pixel of an axis; those of a pixel add up to 1."""
    first = torch.tensor(starts)[:, None]
    pixels = (torch.arange(size * scale, dtype=torch.float32) + 0.5) / scale  # in tokens
    # Distance to the nearest edge that cuts through the picture; the picture's own borders are no cuts.
    from_start = torch.where(first > 0, pixels - first, torch.inf)
    from_end = torch.where(first + length < size, first + length - pixels, torch.inf)
    shares = ((torch.minimum(from_start, from_end) - overlap / 4) / (overlap / 2)).clamp(0, 1)
    return shares / shares.sum(0)
