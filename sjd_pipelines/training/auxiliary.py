"""Losses on inner states that exist in training only: what a reader of caption and picture must know on the way.

Which of two nouns stands left is an exclusive-or of word order and relation word: as long as the two are not combined,
neither tells anything, and the gradient is noise. Asking for the combination itself breaks that: the second noun, who
can know it when it is read, has to name its own part of the picture. Counting is learned likewise by asking every
image token how many objects have begun and how many are still to come.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..emoji.captions import PAD, VOCABULARY
from ..emoji.scenes import RELATIONS
from .batches import MOST_OBJECTS, Batch

PART_WORDS = tuple(VOCABULARY[relation] for relation in RELATIONS)
UNTOLD = -100  # a target that is not asked for


class SceneHeads(nn.Module):
    """Two linear readers of inner states, thrown away after training: objects begun, and objects to come.

    They start at zero, so building them draws no random numbers.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.begun = nn.utils.skip_init(nn.Linear, hidden_size, MOST_OBJECTS + 1)
        self.to_come = nn.utils.skip_init(nn.Linear, hidden_size, MOST_OBJECTS + 1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


def read_layers(layers: int) -> tuple[int, int]:
    """The two layers behind which inner states are read: 2 and 3 of 6."""
    return max(1, layers // 3), max(1, layers // 2)


def part_loss(states: list[torch.Tensor], word_embeddings: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy of naming its own part at the second noun, among the embeddings of the four relation words.

    Args:
        states: `[B, T, D]` each; the mean over them is returned.
        word_embeddings: `[words, D]`.

    Returns:
        Scalar float32 nats; 0 if no row of the batch has such a noun.
    """
    words = word_embeddings[list(PART_WORDS)].float()  # [4, D]
    asked = batch.part >= 0  # [B]
    rows = torch.arange(len(asked), device=asked.device)
    losses = []
    for state in states:
        noun = state[rows, batch.noun].float()  # [B, D]
        logits = F.rms_norm(noun, noun.shape[-1:]) @ words.T
        nats = F.cross_entropy(logits, batch.part.clamp(min=0), reduction="none")
        losses.append((nats * asked).sum() / asked.sum().clamp(min=1))
    return torch.stack(losses).mean()


def scene_state(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """How many objects have begun before each token, and how many are to come: `[B, N]` int64 each.

    Rows without a caption cannot know what is to come: `UNTOLD`.
    """
    places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    begun = (batch.begins[:, None] < places[:, None]).sum(-1)  # [B, N]
    objects = (batch.begins < batch.tokens.shape[1]).sum(-1, keepdim=True)
    captioned = batch.prompt[:, 1:2] != PAD
    return begun, torch.where(captioned, objects - begun, UNTOLD)


def state_losses(heads: SceneHeads, state: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropies of both heads at every image token.

    Args:
        state: `[B, N, D]`; entry n has seen the tokens before n.

    Returns:
        Two scalars, float32 nats.
    """
    begun, to_come = scene_state(batch)
    logits = [head(state).float().flatten(0, 1) for head in (heads.begun, heads.to_come)]  # [B N, 4]
    told = (to_come != UNTOLD).sum().clamp(min=1)
    coming = F.cross_entropy(logits[1], to_come.flatten(), ignore_index=UNTOLD, reduction="sum") / told
    return F.cross_entropy(logits[0], begun.flatten()), coming
