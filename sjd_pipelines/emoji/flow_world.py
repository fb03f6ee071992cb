"""The world of the bundled flow: one glyph on a plain pastel ground, 32 x 32 pixels."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional as F

from .glyphs import LARGE, OBJECTS, load_glyphs

SIDE = 32  # pixels
SIZES = (29, 30)  # pixels per side of a glyph
PALEST = 0.7  # a channel of the ground lies between this and 1


@cache
def glyph_bank() -> torch.Tensor:
    """Every glyph at every size and place: `[objects, variants, 4, 32, 32]` float32, colour premultiplied by alpha."""
    glyphs = torch.from_numpy(load_glyphs(LARGE).copy()).permute(0, 3, 1, 2)  # [O, 4, 80, 80]
    variants = []
    for size in SIZES:
        small = F.interpolate(glyphs, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
        room = SIDE - size
        variants += [
            F.pad(small, (left, room - left, top, room - top)) for top in range(room + 1) for left in range(room + 1)
        ]
    return torch.stack(variants, 1)


class PictureStream:
    """Endless pictures with their classes.

    Args:
        batch_size: B.
        seed: of everything drawn.
        device: where the pictures are made.
    """

    def __init__(self, batch_size: int, seed: int, device: torch.device | str = "cpu"):
        self.batch_size = batch_size
        self.generator = torch.Generator(device).manual_seed(seed)
        self.bank = glyph_bank().to(device)

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures `[B, 3, 32, 32]` float32 in [-1, 1], and labels `[B]` int64, indices into `OBJECTS`."""
        labels = self._integers(len(OBJECTS))
        return self.render(labels), labels

    def render(self, labels: torch.Tensor) -> torch.Tensor:
        """Pictures of these classes `[B]`, on new grounds and places."""
        glyphs = self.bank[labels, self._integers(self.bank.shape[1])]  # [B, 4, 32, 32]
        shape = (self.batch_size, 3, 1, 1)
        ground = PALEST + (1 - PALEST) * torch.rand(shape, generator=self.generator, device=glyphs.device)
        return 2 * (glyphs[:, :3] + (1 - glyphs[:, 3:]) * ground) - 1

    def _integers(self, stop: int) -> torch.Tensor:
        return torch.randint(stop, (self.batch_size,), generator=self.generator, device=self.generator.device)
