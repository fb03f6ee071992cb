"""Which glyph does a small picture show? A judge by template matching, which knows the world and no model.

The ground is the median colour of the picture's rim. Every glyph is laid on that ground at every size and place, and
the one that leaves least of the picture unexplained is read, if it explains enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from .flow_world import SIDE, glyph_bank

MATCH = 0.60  # share of a picture's deviation from its ground that the glyph must explain
MIN_INK = 4.0  # deviation (sum of squares, RGB in [0, 1]) below which a picture is empty


@dataclass(frozen=True)
class FlowReading:
    """What the judge sees in a batch of pictures.

    Attributes:
        glyphs: `[B]` int64, the best glyph, or -1 where none explains enough.
        shares: `[B]` float32, what the best glyph explains, at most 1.
        grounds: `[B, 3]` float32, RGB in [0, 1].
    """

    glyphs: torch.Tensor
    shares: torch.Tensor
    grounds: torch.Tensor


@cache
def _templates() -> tuple[torch.Tensor, torch.Tensor]:
    """Flat premultiplied colour and alpha of every glyph, size and place: two `[O * variants, 3 * 1024]`."""
    bank = glyph_bank().flatten(0, 1)
    return bank[:, :3].flatten(1), bank[:, 3:].expand(-1, 3, -1, -1).flatten(1)


def read_pictures(pictures: torch.Tensor) -> FlowReading:
    """Read `[B, 3, 32, 32]` pictures in [0, 1].

    Raises:
        ValueError: pictures of another shape.
    """
    if pictures.ndim != 4 or pictures.shape[1:] != (3, SIDE, SIDE):
        raise ValueError(f"The judge reads [B, 3, {SIDE}, {SIDE}] pictures, got shape {tuple(pictures.shape)}.")
    pictures = pictures.float().cpu().clamp(0, 1)
    rim = torch.cat([pictures[:, :, 0], pictures[:, :, -1], pictures[:, :, :, 0], pictures[:, :, :, -1]], 2)
    grounds = rim.median(2).values  # [B, 3]
    results = [_read(picture, ground) for picture, ground in zip(pictures, grounds)]
    glyphs, shares = zip(*results)
    return FlowReading(torch.tensor(glyphs), torch.tensor(shares), grounds)


def _read(picture: torch.Tensor, ground: torch.Tensor) -> tuple[int, float]:
    """Best glyph and the share of the deviation it explains."""
    colour, alpha = _templates()
    flat_ground = ground[:, None].expand(3, SIDE * SIDE).flatten()
    deviation = picture.flatten() - flat_ground  # [3072]
    energy = deviation.square().sum()
    ink = torch.addcmul(colour, alpha, flat_ground, value=-1)  # what each template adds to the ground
    explained = 2 * ink @ deviation - ink.square().sum(1)  # |d|^2 - |d - ink|^2
    best = int(explained.argmax())
    share = float(explained[best] / energy.clamp(min=1e-6))
    variants = len(colour) // len(glyph_bank())
    return (best // variants if share > MATCH and energy > MIN_INK else -1), share


def score_pictures(pictures: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """How many of `[B, 3, 32, 32]` pictures in [0, 1] show their class `[B]`.

    Returns:
        `n`; `object`, the share that shows the right glyph; `unread`, the share that shows none; `explained`, the mean
        share of a picture that its best glyph explains.
    """
    reading = read_pictures(pictures)
    return {
        "n": len(labels),
        "object": float((reading.glyphs == labels.cpu()).float().mean()),
        "unread": float((reading.glyphs < 0).float().mean()),
        "explained": float(reading.shares.mean()),
    }
