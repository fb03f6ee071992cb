"""A small network that says how the target's logits change with the tokens before them."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional

NEIGHBOURS = 6


def neighbours(columns: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """How far the tokens that are looked at stand before the next one's left neighbour: `[6]` int64.

    The three on its left, then those above it on the right, above it and above it on the left.

    Args:
        columns: tokens per row of the picture, row ends included.
        device: where it is wanted.
    """
    return torch.tensor([0, 1, 2, columns - 2, columns - 1, columns], device=device)


class DraftReviser(ModelMixin, ConfigMixin):
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

    __module__ = "sjd_pipelines"  # what model_index.json will name, because files move

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
