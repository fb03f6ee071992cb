"""A draft reviser at work: what it remembers of the target's last pass."""

from collections.abc import Callable

import torch
from torch.nn.functional import embedding, pad

from ..decoding import Query, TargetPass, guide
from ..models import DraftReviser
from ..models.reviser import neighbours
from .target import PromptedTarget


class RunningReviser:
    """The `Reviser` of one batch.

    Args:
        network: the draft reviser.
        target: whose embedding, guidance and sampling it borrows.
    """

    def __init__(self, network: DraftReviser, target: PromptedTarget):
        self.network, self.target = network, target
        self.codes = network.code(target.image_embeds)  # [V, C]
        self.neighbours = neighbours(target.layout.width, target.device)
        self.tokens = CanvasMemory(target.batch_size, target.length, target.device)

    def observe(self, seen: TargetPass) -> None:
        """Keep what the target made of one pass."""
        self.predicts, self.hidden, self.logits = seen.query.predicts, seen.hidden, seen.logits
        self.tokens.observe(seen.query)

    def at(self, predicts: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """See `Reviser`."""
        batch, slots = self.predicts.shape
        # Behind the last slot, and in front of the first one of a row that is complete, guesses are of no use.
        slot = (predicts - self.predicts[:, :1]).clamp(max=slots - 1)
        pair = torch.stack([slot, slot - 1], -1).clamp(min=0)  # [B, C, 2]
        rows = torch.arange(len(self.hidden), device=slot.device).view(-1, batch, 1) * slots  # [1 or 2, B, 1]
        hidden = embedding(rows[..., None] + pair, self.hidden.flatten(0, 1))  # [1 or 2, B, C, 2, D]
        logits = embedding(rows[0] + slot, self.logits.flatten(0, 1))  # [B, C, V]
        around = places_around(predicts, self.neighbours)
        seen = tokens_at(self.tokens.seen, around)  # [B, C, 6]
        states = self.network.read(hidden, embedding(seen, self.codes))  # [1 or 2, B, C, 2 * width]

        def laws(canvas: torch.Tensor) -> torch.Tensor:
            tokens = tokens_at(pad(canvas, (1, 0)), around)
            outputs = self.network.respond(states, embedding(tokens, self.codes))  # [1 or 2, B, C, width]
            output = guide(*outputs, self.target.sampling.guidance_scale) if len(outputs) > 1 else outputs[0]
            change = self.network.change(output).float().masked_fill_((tokens == seen).all(-1, keepdim=True), 0.0)
            return self.target.law(change.add_(logits), predicts)

        return laws


class CanvasMemory:
    """The tokens that the target has seen last at every position.

    Attributes:
        seen: `[B, 1 + length]` int64; each row begins with the end of the prompt, of which nothing is kept.
    """

    def __init__(self, batch_size: int, length: int, device: torch.device | str = "cpu"):
        self.seen = torch.zeros(batch_size, 1 + length, dtype=torch.int64, device=device)

    def observe(self, query: Query) -> None:
        """Keep the tokens of one pass."""
        first = int(query.prompt_end)
        self.seen.scatter_(1, query.positions[:, first:] + 1, query.token_ids[:, first:])


def places_around(predicts: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Where the `neighbours` of what is predicted at `[B, C]` stand in `CanvasMemory`: `[B, C, 6]` int64.

    In front of the picture stands what the memory holds of the end of the prompt; it does not change.
    """
    return (predicts[..., None] - neighbours).clamp(min=0)


def tokens_at(canvas: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`[B, L]`, `[B, C, 6]` -> `[B, C, 6]`."""
    return canvas.gather(1, places.flatten(1)).view_as(places)
