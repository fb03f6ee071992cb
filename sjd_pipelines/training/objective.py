"""What training descends: what each image token is asked to predict, how much it counts, and what is asked besides.

The pictures are drawn by a program, so the law of a background token given the light behind it is known exactly.
Training on that law instead of on the drawn level has the same expected gradient and almost none of its noise.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration

from ..emoji.captions import PAD
from ..emoji.codes import BACKGROUND_CODES
from ..emoji.glyphs import GRID
from ..emoji.scenes import LEVELS, NOISE
from .architecture import hidden_states
from .auxiliary import SceneHeads, part_loss, read_layers, state_losses
from .batches import Batch

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
    edges = torch.arange(LEVELS - 1, device=tokens.device) + 0.5
    below = torch.special.ndtr((edges - light[..., None]) / NOISE)  # [B, N, LEVELS - 1]
    law = torch.diff(F.pad(F.pad(below, (1, 0), value=0.0), (0, 1), value=1.0), dim=-1)
    choices = (tokens - tokens % LEVELS)[..., None] + torch.arange(LEVELS, device=tokens.device)
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


def caption_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the last word before the image predicting the histogram of glyph tokens; scalar float32 nats.

    Args:
        logits: `[B, codebook]` float32 at that word.
    """
    glyphs = (batch.tokens >= BACKGROUND_CODES).float()  # [B, N]
    histogram = torch.zeros_like(logits).scatter_add_(1, batch.tokens, glyphs / glyphs.sum(1, keepdim=True))
    captioned = (batch.prompt[:, 1] != PAD).float()
    return (F.cross_entropy(logits, histogram, reduction="none") * captioned).mean()


LOSSES = ("token", "caption", "part", "begun", "to_come")  # what training descends, weighted by the phase


def training_losses(
    model: JanusForConditionalGeneration, heads: SceneHeads, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """All that training descends, in the order of `LOSSES`.

    Words are worth a few of the picture's hundred nats, at a handful of its tokens: too faint a signal to learn them
    from. Four things make it loud, none of which changes the law that is learned: soft background targets
    (`token_law`), larger weights where words matter (`position_weights`), the caption loss, and the questions of
    `auxiliary`.

    Returns:
        The losses, `[5]` float32 nats, and the same for the log, detached: there the first is the plain negative
        log-likelihood of the tokens, and the part loss is nan where nothing was asked.
    """
    start = batch.prompt.shape[1] - 1  # the slot of the first token's law
    with torch.autocast(batch.tokens.device.type, torch.bfloat16):
        states = hidden_states(model, batch.prompt, batch.tokens)
        logits = model.model.generation_head(states[-1][:, start - 1 :])
    logits = logits.float()
    choices, law = token_law(batch.tokens, batch.light)
    log_law = torch.log_softmax(logits[:, 1:], dim=-1)  # [B, N, V]
    soft = -(law * log_law.gather(-1, choices)).sum(-1)  # [B, N]
    weights = position_weights(batch.tokens)
    early, late = (states[layer] for layer in read_layers(len(states) - 1))
    part = part_loss([early, late], model.get_input_embeddings().weight, batch)
    others = [caption_loss(logits[:, 0], batch), part, *state_losses(heads, late[:, start:], batch)]
    plain = -log_law.gather(-1, batch.tokens[..., None]).mean()
    report = torch.stack([plain, *others]).detach()
    report[LOSSES.index("part")] += torch.where((batch.part >= 0).any(), 0.0, torch.nan)
    return torch.stack([(weights * soft).sum() / weights.sum(), *others]), report
