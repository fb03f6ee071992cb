"""A draft model at work: what it remembers of the target's hidden states and of its own."""

from collections.abc import Callable

import torch
from torch.nn import functional

from ..decoding import CanvasCache, Query
from ..decoding.drafter import DraftQuery
from ..models import EagleDrafter

# How much of a guess' error is expected again where the token has changed since the review: in the state that the next
# guess builds on, and in the law. Measured on the bundled checkpoint. Where the token has not changed it is all.
CARRIED_STATE, CARRIED_LAW = 0.75, 0.25
NO_TOKEN = -1


class RunningDrafter:
    """The `Drafter` of one batch. Hidden states live at the slot of their token, as keys and values do.

    Args:
        network: the draft model.
        image_embeds: `[V, D]`, the target's embedding of every image token.
        law: `(hidden [R, M, D], positions [B, M]) -> [B, M, V]`, the target's head, guidance and warping.
        length: canvas slots per row.
        columns: tokens per row of the picture, row ends included.
    """

    def __init__(
        self,
        network: EagleDrafter,
        image_embeds: torch.Tensor,
        law: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        length: int,
        columns: int,
    ):
        self.network, self.image_embeds, self.law = network, image_embeds, law
        self.length = length
        self.cache = CanvasCache(length)
        self.rotations = network.rotations(length, columns, image_embeds.device)  # [length, head size]
        # Rows of memory, an image's (or its unconditional branch's) one after another, from slot -1 on.
        self.features: torch.Tensor | None = None  # [R * (1 + length), D]
        self.errors: torch.Tensor | None = None  # the same: what a guess lacked of the target's state, where reviewed
        self.reviewed: torch.Tensor | None = None  # [B, 1 + length], the token it was reviewed with

    def observe(self, query: Query, hidden: torch.Tensor) -> None:
        """Keep the target's final hidden states `[R, Q, D]` of one pass."""
        if self.features is None:
            rows, size = len(hidden), 1 + self.length
            self.features = hidden.new_zeros(rows * size, hidden.shape[-1])
            first = torch.arange(rows, device=hidden.device)[:, None] * size + 1
            self.first = first.unflatten(0, (-1, len(query.positions)))  # [R / B, B, 1], where slot 0 is
        self._write(self.features, query.positions if query.slots is None else query.slots, hidden)

    def laws(self, query: DraftQuery) -> torch.Tensor:
        """`[B, M, V]`, see `Drafter`."""
        self._move(query)
        slots = query.positions if query.slots is None else query.slots
        state = hidden = self._guess(query, slots)
        if self.errors is not None:
            error = self._read(self.errors, query.positions)
            changed = self._rows(self.reviewed.gather(1, query.positions + 1) != query.token_ids)[..., None]
            state = hidden + torch.where(changed, CARRIED_STATE, 1.0) * error
            hidden = hidden + torch.where(changed, CARRIED_LAW, 1.0) * error
        self._write(self.features, slots, state)
        wanted = query.positions
        if query.wanted is not None:
            index = self._rows(query.wanted)[..., None].expand(-1, -1, hidden.shape[-1])
            hidden, wanted = hidden.gather(1, index), wanted.gather(1, query.wanted)
        return self.law(hidden, wanted)

    def review(self, query: DraftQuery) -> None:
        """See `Drafter`. Errors live at raster positions: a branch is corrected as the main chain beside it."""
        if self.errors is None:
            self.errors = torch.zeros_like(self.features)
            self.reviewed = query.token_ids.new_full((len(query.token_ids), 1 + self.length), NO_TOKEN)
        self._move(query)
        errors = self._read(self.features, query.positions) - self._guess(query, query.positions)
        self.reviewed.scatter_(1, query.positions + 1, query.token_ids)
        self._write(self.errors, query.positions, errors)

    def _move(self, query: DraftQuery) -> None:
        if query.moves is not None:
            sources, targets = query.moves
            self._write(self.features, targets, self._read(self.features, sources))

    def _guess(self, query: DraftQuery, slots: torch.Tensor) -> torch.Tensor:
        """`[R, Q, D]`: hidden states as the network guesses them at `slots` `[B, Q]`."""
        features = self._read(self.features, slots - 1 if query.parents is None else query.parents)
        embeds = self._rows(functional.embedding(query.token_ids, self.image_embeds))
        positions = self._rows(query.positions)
        self.cache.place(positions if slots is query.positions else self._rows(slots), query.visible.shape[-1])
        mask = self._rows(query.visible)[:, None]  # [R, 1, Q, S]
        return self.network(features, embeds, mask, positions, self.rotations, self.cache)

    def _rows(self, values: torch.Tensor) -> torch.Tensor:
        """`[B, ...]` -> `[R, ...]`, conditional rows first, then the unconditional ones if there are any."""
        copies = len(self.first)
        return torch.cat([values] * copies) if copies > 1 else values

    def _read(self, memory: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """`[R * (1 + length), D]`, `[B, Q]` -> `[R, Q, D]`."""
        return functional.embedding(self.first + slots, memory).flatten(0, 1)

    def _write(self, memory: torch.Tensor, slots: torch.Tensor, hidden: torch.Tensor) -> None:
        """`[R * (1 + length), D]`, `[B, Q]`, `[R, Q, D]`."""
        memory.index_copy_(0, (self.first + slots).flatten(), hidden.flatten(0, 1))
