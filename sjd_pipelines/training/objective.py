"""What each image token is asked to predict, and how much it counts.

The pictures are drawn by a program, so the law of a background token given the light behind it is known exactly.
Training on that law instead of on the drawn level has the same expected gradient and almost none of its noise.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..emoji.codes import BACKGROUND_CODES
from ..emoji.glyphs import GRID
from ..emoji.scenes import LEVELS, NOISE

FIRST_WEIGHT = 8.0  # the first token alone decides the background colour
OPEN_WEIGHT = 3.0  # cells where a new object may begin


def token_law(tokens: torch.Tensor, light: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The target law of every token, given the noise-free light and what is drawn.

    Args:
        tokens: `[B, N]` int64.
        light: `[B, N]` float32 in levels.

    Returns:
        Candidate tokens `[B, N, LEVELS]` int64 and their probabilities, float32: the levels of the background's
        colour, or the token itself (all the mass on the first entry) where a glyph is.
    """
    edges = torch.arange(LEVELS - 1) + 0.5
    below = torch.special.ndtr((edges - light[..., None]) / NOISE)  # [B, N, LEVELS - 1]
    law = torch.diff(F.pad(F.pad(below, (1, 0), value=0.0), (0, 1), value=1.0), dim=-1)
    choices = (tokens - tokens % LEVELS)[..., None] + torch.arange(LEVELS)
    glyph = (tokens >= BACKGROUND_CODES)[..., None]
    itself = F.one_hot(torch.zeros_like(tokens), LEVELS).to(law.dtype)
    return torch.where(glyph, tokens[..., None], choices), torch.where(glyph, itself, law)


def position_weights(tokens: torch.Tensor) -> torch.Tensor:
    """How much each token counts: `[B, N]` float32, a function of the tokens *before* it only.

    A weight that looked at the token itself would change the law that is learned; one that looks at the past cannot.
    """
    ground = F.pad((tokens < BACKGROUND_CODES).view(-1, GRID, GRID).float(), (1, 1, 1, 0), value=1.0)
    left, above = ground[:, 1:, :GRID], ground[:, :GRID, 1 : GRID + 1]
    above_left, above_right = ground[:, :GRID, :GRID], ground[:, :GRID, 2:]
    weights = 1 + (OPEN_WEIGHT - 1) * (left * above * above_left * above_right).flatten(1)
    weights[:, 0] = FIRST_WEIGHT
    return weights
