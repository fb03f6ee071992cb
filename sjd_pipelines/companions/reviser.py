"""A small network that says how the target's logits change with the tokens before them.

The network, and the network at work on one batch: what it remembers of the target's last pass.
"""

from collections.abc import Callable

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional
from torch.nn.functional import embedding, pad

from ..decoding import Query, TargetPass, guide
from ..decoding.target import HostTarget
from .base import CompanionNetwork, Laws

NEIGHBOURS = 6


def neighbours(columns: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """How far the tokens that are looked at stand before the next one's left neighbour: `[6]` int64.

    The three on its left, then those above it on the right, above it and above it on the left.

    Args:
        columns: tokens per row of the picture, row ends included.
        device: where it is wanted.
    """
    return torch.tensor([0, 1, 2, columns - 2, columns - 1, columns], device=device)


class DraftReviser(CompanionNetwork):
    """What the target's logits gain where its next token's neighbours differ from those it has seen.

    A gated layer on what the target made of the tokens it saw and on how those around differ, each known by a short
    code; a low-rank table turns its output into logits. Guidance mixes the outputs of a picture's rows as it mixes
    their logits.

    Args:
        hidden_size: D of the target.
        vocabulary_size: V of the target's image tokens, structural ones included.
        code_size: numbers that stand for a token.
        intermediate_size: width of the gated layer.
        rank: of the table.
    """

    calls = ("read", "respond", "change")

    @register_to_config
    def __init__(
        self,
        hidden_size: int,
        vocabulary_size: int,
        code_size: int = 48,
        intermediate_size: int = 192,
        rank: int = 96,
    ):
        super().__init__()
        self.code = nn.Linear(hidden_size, code_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size)
        self.hidden_gate = nn.Linear(2 * hidden_size, 2 * intermediate_size)
        self.seen_gate = nn.Linear(NEIGHBOURS * code_size, 2 * intermediate_size, bias=False)
        self.token_gate = nn.Linear(NEIGHBOURS * code_size, 2 * intermediate_size, bias=False)
        self.out = nn.Linear(intermediate_size, rank, bias=False)
        self.table = nn.Linear(rank, vocabulary_size, bias=False)

    def running(self, target: HostTarget) -> "RunningReviser":
        return RunningReviser(self, target)

    @classmethod
    def small(cls, hidden_size: int, vocabulary_size: int) -> "DraftReviser":
        return cls(hidden_size, vocabulary_size, code_size=8, intermediate_size=16, rank=8)

    @staticmethod
    def stand_in(laws: Laws) -> "GivenReviser":
        return GivenReviser(laws)

    def forward(self, hidden: torch.Tensor, seen: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What `change` turns into the change of the logits.

        Args:
            hidden: `[..., 2, D]`, the target's final hidden states at the token and at the one before it.
            seen: `[..., 6, C]`, codes of the `neighbours` as the target saw them.
            tokens: `[..., 6, C]`, codes of those there now.

        Returns:
            `[..., intermediate_size]`.
        """
        return self.respond(self.read(hidden, seen), tokens)

    def read(self, hidden: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """What the target's pass gives to the gated layer, whatever the tokens now: `[..., 2 * intermediate_size]`."""
        return self.hidden_gate(self.norm(hidden).flatten(-2)) + self.seen_gate(seen.flatten(-2))

    def respond(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """`forward` with what `read` has made of the target's pass: `[..., intermediate_size]`."""
        gate, value = (states + self.token_gate(tokens.flatten(-2))).chunk(2, -1)
        return functional.silu(gate) * value

    def change(self, outputs: torch.Tensor) -> torch.Tensor:
        """What the logits gain: `[..., intermediate_size]` -> `[..., V]`."""
        return self.table(self.out(outputs))


class RunningReviser:
    """The `Reviser` of one batch.

    Args:
        network: the draft reviser.
        target: whose embedding, guidance and sampling it borrows.
    """

    def __init__(self, network: DraftReviser, target: HostTarget):
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


class GivenReviser:
    """A `Reviser` whose laws are given.

    Args:
        given: asked once for every answer.
    """

    def __init__(self, given: Laws):
        self.given = given

    def observe(self, seen: TargetPass) -> None:
        """What it says next does not depend on it."""

    def at(self, predicts: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """See `Reviser`."""
        return lambda canvas: self.given(*predicts.shape)


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
