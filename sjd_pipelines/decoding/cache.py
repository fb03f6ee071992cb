"""A static key/value memory addressed by position, behind the Hugging Face `Cache` interface."""

import torch
from transformers import Cache


class CanvasCache(Cache):
    """Keys and values live at the slot of their position; there is nothing to roll back.

    A forward pass writes the slots named by `place`, and its attention mask decides what it reads. Rejected drafts
    are invisible and are overwritten later, and every row of a batch may stand somewhere else. Works with any
    transformers decoder that calls `past_key_values.update` and accepts a ready 4-D mask and `position_ids`.

    Args:
        length: slots per row (prompt, image tokens and margin).
    """

    def __init__(self, length: int):
        super().__init__(layers=[])
        self.length = length
        self._keys: list[torch.Tensor] = []  # per layer [B * length, heads, head_dim]
        self._values: list[torch.Tensor] = []
        self._index: torch.Tensor | None = None  # [B * Q] int64, where this pass writes
        self._extent = 0

    def place(self, slots: torch.Tensor, extent: int) -> None:
        """Say where the next forward pass writes and how far it reads.

        Args:
            slots: `[B, Q]` int64, one slot per query token; distinct within a row.
            extent: slots 0 .. extent - 1 are read.
        """
        self._index = self._flat(slots)
        self._extent = extent

    def move(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy keys and values between slots, `[B, M]` int64 each: an accepted branch takes its place."""
        sources, targets = self._flat(sources), self._flat(targets)
        for memory in self._keys + self._values:
            memory.index_copy_(0, targets, memory.index_select(0, sources))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write `[B, heads, Q, head_dim]` keys and values; return views `[B, heads, extent, head_dim]`."""
        if layer_idx == len(self._keys):
            self._allocate(key_states, value_states)
        return (
            self._write_and_read(self._keys[layer_idx], key_states),
            self._write_and_read(self._values[layer_idx], value_states),
        )

    def _allocate(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        for memory, states in ((self._keys, key_states), (self._values, value_states)):
            batch, heads, _, dim = states.shape
            # Zeros, not empty memory: a masked slot still enters the product, and 0 * NaN is NaN.
            memory.append(states.new_zeros(batch * self.length, heads, dim))

    def _write_and_read(self, memory: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        # [B, heads, Q, dim] -> [B * Q, heads, dim]: one contiguous row per token
        memory.index_copy_(0, self._index, states.transpose(1, 2).flatten(0, 1))
        rows = memory.unflatten(0, (-1, self.length))[:, : self._extent]  # [B, extent, heads, dim]
        return rows.transpose(1, 2)

    def _flat(self, slots: torch.Tensor) -> torch.Tensor:
        """`[B, Q]` slots -> `[B * Q]` rows of the memory."""
        offsets = torch.arange(slots.shape[0], device=slots.device)[:, None] * self.length
        return (slots + offsets).flatten()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Slots the next forward pass reads; positions are always given explicitly."""
        return self._extent

    @property
    def nbytes(self) -> int:
        return sum(memory.nbytes for memory in self._keys + self._values)
