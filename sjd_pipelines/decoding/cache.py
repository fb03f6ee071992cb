"""A static key/value memory addressed by position, behind the Hugging Face `Cache` interface."""

from functools import cache
from inspect import signature

import torch
from transformers import Cache, LlamaModel

from .look import look_is_free


@cache
def cache_keyword() -> str:
    """What decoders of this transformers call their cache: `cache`, and before 5.24 `past_key_values`."""
    return "cache" if "cache" in signature(LlamaModel.forward).parameters else "past_key_values"


class CanvasCache(Cache):
    """Keys and values live at the slot of their position; there is nothing to roll back.

    A forward pass writes the slots named by `place`, and its attention mask decides what it reads. Rejected drafts
    are invisible and are overwritten later, and every row of a batch may stand somewhere else. Works with any
    transformers decoder that takes a `Cache`, by `cache_keyword()`, and accepts a ready 4-D mask and `position_ids`.

    Args:
        length: slots per row (prompt, image tokens and margin).
    """

    def __init__(self, length: int):
        super().__init__(layers=[])
        self.length = length
        self._keys: list[torch.Tensor] = []  # per layer [B, heads, length, head_dim]
        self._values: list[torch.Tensor] = []
        self._slots: torch.Tensor | None = None  # [B, Q] int64, where this pass writes
        self._index: torch.Tensor | None = None  # [B * heads * Q] int64: the same as rows of the flat memory
        self._extent = 0

    def place(self, slots: torch.Tensor, extent: int) -> None:
        """Say where the next forward pass writes and how far it reads.

        Args:
            slots: `[B, Q]` int64, one slot per query token; distinct within a row.
            extent: slots 0 .. extent - 1 are read.
        """
        self._slots, self._index, self._extent = slots, None, extent

    def move(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy keys and values between slots, `[B, M]` int64 each: an accepted branch takes its place."""
        if look_is_free(sources):  # much of it is in its place already
            moved = (sources != targets).any(0)
            sources, targets = sources[:, moved], targets[:, moved]
            if not sources.numel():
                return
        heads = self._keys[0].shape[1]
        sources, targets = self._rows(sources, heads), self._rows(targets, heads)
        for memory in self._keys + self._values:
            flat = memory.flatten(0, 2)  # [B, heads, length, dim] -> [B * heads * length, dim]
            flat.index_copy_(0, targets, flat.index_select(0, sources))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write `[B, heads, Q, head_dim]` keys and values; return views `[B, heads, extent, head_dim]`."""
        if layer_idx == len(self._keys):
            self._allocate(key_states, value_states)
        if self._index is None:
            self._index = self._rows(self._slots, key_states.shape[1])
        return (
            self._write_and_read(self._keys[layer_idx], key_states),
            self._write_and_read(self._values[layer_idx], value_states),
        )

    def _allocate(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        for memory, states in ((self._keys, key_states), (self._values, value_states)):
            batch, heads, _, dim = states.shape
            # Zeros, not empty memory: a masked slot still enters the product, and 0 * NaN is NaN.
            memory.append(states.new_zeros(batch, heads, self.length, dim))

    def _write_and_read(self, memory: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        memory.flatten(0, 2).index_copy_(0, self._index, states.flatten(0, 2))
        return memory[:, :, : self._extent]

    def _rows(self, slots: torch.Tensor, heads: int) -> torch.Tensor:
        """`[B, Q]` slots -> `[B * heads * Q]` rows of a memory flattened to `[B * heads * length, dim]`."""
        first = torch.arange(slots.shape[0] * heads, device=slots.device).view(-1, heads, 1) * self.length
        return (first + slots[:, None]).flatten()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Slots the next forward pass reads; positions are always given explicitly."""
        return self._extent

    @property
    def nbytes(self) -> int:
        return sum(memory.nbytes for memory in self._keys + self._values)
