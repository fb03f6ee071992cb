"""A draft model of one layer, which guesses the target's next hidden state from its last one (EAGLE).

The network, and the network at work on one batch: what it remembers of the target's hidden states and of its own.
"""

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn.functional import embedding

from ..decoding import CanvasCache, TargetPass
from ..decoding.drafter import DraftQuery
from ..decoding.query import after_prompt_end
from ..decoding.target import HostTarget
from ..models.llamagen import LlamaGenBlock, RMSNorm, raster_rotation
from .base import CompanionNetwork, Laws

# How much of a guess' error is expected again where the token has changed since the review: in the state that the next
# guess builds on, and in the law. Measured on the bundled checkpoint. Where the token has not changed it is all.
CARRIED_STATE, CARRIED_LAW = 0.75, 0.25
NO_TOKEN = -1


class EagleDrafter(CompanionNetwork):
    """EAGLE (Li et al. 2024, arXiv 2401.15077), with rows and columns of the picture in its rotary positions.

    Embedding and head are the target's own. What came before the picture reaches it through the target's states only.

    Args:
        hidden_size: D of the target, a multiple of 4 * num_attention_heads.
        num_attention_heads: attention heads.
        intermediate_size: width of the feed-forward.
        rope_theta: base of the rotary frequencies.
        norm_eps: epsilon of the norms.
    """

    @register_to_config
    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        intermediate_size: int,
        rope_theta: float = 10000.0,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        if hidden_size % (4 * num_attention_heads):
            raise ValueError(
                "hidden_size must be a multiple of 4 * num_attention_heads: rows and columns share a head."
            )
        self.fuse = nn.Linear(2 * hidden_size, hidden_size)
        self.layer = LlamaGenBlock(hidden_size, num_attention_heads, intermediate_size, norm_eps, index=0)
        self.norm = RMSNorm(hidden_size, norm_eps)

    def running(self, target: HostTarget) -> "RunningDrafter":
        return RunningDrafter(self, target)

    @classmethod
    def small(cls, hidden_size: int, vocabulary_size: int) -> "EagleDrafter":
        return cls(hidden_size, num_attention_heads=2, intermediate_size=2 * hidden_size)

    @staticmethod
    def stand_in(laws: Laws) -> "GivenDrafter":
        return GivenDrafter(laws)

    def forward(
        self,
        features: torch.Tensor,
        embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        rotations: torch.Tensor,
        cache=None,
    ) -> torch.Tensor:
        """Guess the target's final hidden state at each token.

        Args:
            features: `[R, Q, D]` hidden states (the target's or guessed ones) at the tokens before.
            embeds: `[R, Q, D]` embeddings of the tokens.
            attention_mask: `[R, 1, Q, L]`, bool or what is added to the scores.
            position_ids: `[R, Q]` int64 raster indices of the tokens.
            rotations: of all raster indices, see `rotations`.
            cache: where keys and values are written and read (`update`); None attends among the queries alone.

        Returns:
            `[R, Q, D]`, to be turned into logits by the target's head.
        """
        rotation = embedding(position_ids, rotations)[:, None].chunk(2, -1)  # two [R, 1, Q, head size / 2]
        hidden = self.fuse(torch.cat([embeds, features], -1))
        return self.norm(self.layer(hidden, rotation, attention_mask, cache))

    def rotations(self, length: int, columns: int, device: torch.device | str) -> torch.Tensor:
        """Cosines and sines of the first `length` tokens of a picture, `columns` in a row: `[length, head size]`."""
        places = torch.arange(length, device=device)[None]
        head_size = self.config.hidden_size // self.config.num_attention_heads
        return torch.cat(raster_rotation(places, columns, head_size, self.config.rope_theta), -1)[0, 0]


class RunningDrafter:
    """The `Drafter` of one batch. Hidden states live at the slot of their token, as keys and values do.

    Args:
        network: the draft model.
        target: whose embedding, head, guidance and sampling it borrows.
    """

    def __init__(self, network: EagleDrafter, target: HostTarget):
        self.network, self.target, self.length = network, target, target.length
        self.cache = CanvasCache(self.length)
        self.rotations = network.rotations(self.length, target.layout.width, target.device)  # [length, head size]
        # Rows of memory, an image's (or its unconditional branch's) one after another. Each begins with the end of
        # the prompt, so that canvas slot s is its entry s + 1.
        self.features: torch.Tensor | None = None  # [R * (1 + length), D]
        self.errors: torch.Tensor | None = None  # the same: what a guess lacked of the target's state, where reviewed
        self.reviewed: torch.Tensor | None = None  # [B, 1 + length], the token it was reviewed with

    def observe(self, seen: TargetPass) -> None:
        """Keep the target's final hidden states of one pass."""
        query, hidden = seen.query, seen.hidden
        if self.features is None:
            rows, size = len(hidden), 1 + self.length
            self.features = hidden.new_zeros(rows * size, hidden.shape[-1])
            first = torch.arange(rows, device=hidden.device)[:, None] * size
            self.first = first.unflatten(0, (-1, len(query.positions)))  # [R / B, B, 1], where each row begins
        self._write(self.features, after_prompt_end(query, query.canvas_slots), hidden)

    def laws(self, query: DraftQuery) -> torch.Tensor:
        """`[B, M, V]`, see `Drafter`."""
        self._move(query)
        slots = query.canvas_slots
        state = hidden = self._guess(query, slots)
        if self.errors is not None:
            error = self._read(self.errors, query.positions + 1)
            changed = self._rows(self.reviewed.gather(1, query.positions + 1) != query.token_ids)[..., None]
            state = hidden + torch.where(changed, CARRIED_STATE * error, error)
            hidden = hidden + torch.where(changed, CARRIED_LAW * error, error)
        self._write(self.features, slots + 1, state)
        wanted = query.predicts
        if query.wanted is not None:
            index = self._rows(query.wanted)[..., None].expand(-1, -1, hidden.shape[-1])
            hidden, wanted = hidden.gather(1, index), wanted.gather(1, query.wanted)
        return self.target.law(self.target.guided_logits(hidden), wanted)

    def review(self, query: DraftQuery) -> None:
        """See `Drafter`. Errors live at positions: a branch is corrected as the main chain beside it."""
        if self.errors is None:
            self.errors = torch.zeros_like(self.features)
            self.reviewed = query.token_ids.new_full((len(query.token_ids), 1 + self.length), NO_TOKEN)
        self._move(query)
        errors = self._read(self.features, query.positions + 1) - self._guess(query, query.positions)
        self.reviewed.scatter_(1, query.positions + 1, query.token_ids)
        self._write(self.errors, query.positions + 1, errors)

    def _move(self, query: DraftQuery) -> None:
        if query.moves is not None:
            sources, targets = query.moves
            self._write(self.features, targets + 1, self._read(self.features, sources + 1))

    def _guess(self, query: DraftQuery, slots: torch.Tensor) -> torch.Tensor:
        """`[R, Q, D]`: hidden states as the network guesses them at `slots` `[B, Q]`."""
        features = self._read(self.features, slots if query.parents is None else query.parents + 1)
        embeds = self._rows(embedding(query.token_ids, self.target.image_embeds))
        positions = self._rows(query.positions)
        self.cache.place(positions if slots is query.positions else self._rows(slots), query.visible.shape[-1])
        mask = self._rows(query.visible)[:, None]  # [R, 1, Q, S]
        return self.network(features, embeds, mask, positions, self.rotations, self.cache)

    def _rows(self, values: torch.Tensor) -> torch.Tensor:
        """`[B, ...]` -> `[R, ...]`, conditional rows first, then the unconditional ones if there are any."""
        copies = len(self.first)
        return torch.cat([values] * copies) if copies > 1 else values

    def _read(self, memory: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
        """`[R * (1 + length), D]`, `[B, Q]` -> `[R, Q, D]`."""
        return embedding(self.first + entries, memory).flatten(0, 1)

    def _write(self, memory: torch.Tensor, entries: torch.Tensor, hidden: torch.Tensor) -> None:
        """`[R * (1 + length), D]`, `[B, Q]`, `[R, Q, D]`."""
        memory.index_copy_(0, (self.first + entries).flatten(), hidden.flatten(0, 1))


class GivenDrafter:
    """A `Drafter` whose laws are given.

    Args:
        given: asked once for every answer.
    """

    def __init__(self, given: Laws):
        self.given = given

    def observe(self, seen: TargetPass) -> None:
        """What it says next does not depend on it."""

    def laws(self, query: DraftQuery) -> torch.Tensor:
        """`[B, M, V]`, see `Drafter`."""
        return self.given(*(query.token_ids if query.wanted is None else query.wanted).shape)

    def review(self, query: DraftQuery) -> None:
        """What it says next does not depend on it."""
