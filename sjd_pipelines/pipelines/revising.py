"""A draft reviser at work: what it remembers of the target's last pass."""

from collections.abc import Callable

import torch
from torch.nn.functional import embedding, pad

from ..decoding import Query, guide
from ..models import DraftReviser
from ..models.reviser import neighbours


class RunningReviser:
    """The `Reviser` of one batch.

    Args:
        network: the draft reviser.
        image_embeds: `[V, D]`, the target's embedding of every image token.
        warp: `(guided logits [B, C, V], positions [B, C]) -> [B, C, V]`, the law that is sampled.
        guidance_scale: strength of guidance; at 1 or below there are no unconditional rows.
        columns: tokens per row of the picture, row ends included.
        length: canvas slots per row.
    """

    def __init__(
        self,
        network: DraftReviser,
        image_embeds: torch.Tensor,
        warp: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        guidance_scale: float,
        columns: int,
        length: int,
    ):
        self.network, self.warp, self.guidance_scale = network, warp, guidance_scale
        self.codes = network.code(image_embeds)  # [V, C]
        self.neighbours, self.length = neighbours(columns, image_embeds.device), length
        self.seen: torch.Tensor | None = None  # [B, 1 + length] int64: tokens as last seen, from position -1 on

    def observe(self, query: Query, hidden: torch.Tensor, logits: torch.Tensor) -> None:
        """Keep what the target made of one pass: `[R, Q, D]` final hidden states and `[B, Q, V]` guided logits."""
        self.positions, self.hidden, self.logits = query.positions, hidden, logits
        if self.seen is None:
            self.seen = query.token_ids.new_zeros(len(query.token_ids), 1 + self.length)
        # A slot at position -1 holds the token of position 0 as well.
        self.seen.scatter_(1, query.positions.clamp(min=0) + 1, query.token_ids)

    def at(self, positions: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """See `Reviser`."""
        batch, slots = self.positions.shape
        # Behind the last slot, and in front of the first one of a row that is complete, guesses are of no use.
        slot = (positions - self.positions[:, :1]).clamp(max=slots - 1)
        pair = torch.stack([slot, slot - 1], -1).clamp(min=0)  # [B, C, 2]
        rows = torch.arange(len(self.hidden), device=slot.device).view(-1, batch, 1) * slots  # [1 or 2, B, 1]
        hidden = embedding(rows[..., None] + pair, self.hidden.flatten(0, 1))  # [1 or 2, B, C, 2, D]
        logits = embedding(rows[0] + slot, self.logits.flatten(0, 1))  # [B, C, V]
        around = slots_around(positions, self.neighbours)
        seen = tokens_at(self.seen, around)  # [B, C, 6]
        states = self.network.read(hidden, embedding(seen, self.codes))  # [1 or 2, B, C, 2 * width]

        def laws(canvas: torch.Tensor) -> torch.Tensor:
            tokens = tokens_at(pad(canvas, (1, 0)), around)
            outputs = self.network.respond(states, embedding(tokens, self.codes))  # [1 or 2, B, C, width]
            output = guide(*outputs, self.guidance_scale) if len(outputs) > 1 else outputs[0]
            change = self.network.change(output).float().masked_fill_((tokens == seen).all(-1, keepdim=True), 0.0)
            return self.warp(change.add_(logits), positions)

        return laws


def slots_around(positions: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Where the `neighbours` of the tokens behind `positions` `[B, C]` stand on a canvas that begins at position -1.

    In front of the picture stands what the canvas holds at position -1; it does not change. `[B, C, 6]` int64.
    """
    return (positions[..., None] - neighbours + 1).clamp(min=0)


def tokens_at(canvas: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """`[B, L]`, `[B, C, 6]` -> `[B, C, 6]`."""
    return canvas.gather(1, slots.flatten(1)).view_as(slots)
