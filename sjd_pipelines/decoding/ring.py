"""Numbers that are remembered for the positions a window is about."""

import torch


class PositionRing:
    """A number per token for the most recent positions, addressed by position modulo the ring's size.

    Args:
        batch_size: B.
        size: positions that are remembered.
        vocabulary_size: V.
        device: where the `[B, size, V]` float32 numbers are.
    """

    def __init__(self, batch_size: int, size: int, vocabulary_size: int, device: torch.device | str):
        self.values = torch.zeros(batch_size, size, vocabulary_size, dtype=torch.float32, device=device)
        self._first = torch.arange(batch_size, device=device)[:, None] * size

    def write(self, positions: torch.Tensor, values: torch.Tensor) -> None:
        """Store `values` `[B, Q, V]` at `positions` `[B, Q]`; at most `size` consecutive positions per row."""
        self.values.flatten(0, 1).index_copy_(0, self._index(positions).flatten(), values.flatten(0, 1))

    def read(self, positions: torch.Tensor) -> torch.Tensor:
        """`[B, Q]` -> `[B, Q, V]`."""
        rows = self._index(positions).flatten()
        return self.values.flatten(0, 1).index_select(0, rows).unflatten(0, positions.shape)

    def at(self, positions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The numbers of some tokens alone: `[B, Q]`, `[B, Q]` or `[B, Q, K]` -> as `tokens`."""
        rows = self._index(positions).view(*positions.shape, *[1] * (tokens.dim() - 2))
        return self.values.take(rows * self.values.shape[-1] + tokens)

    def _index(self, positions: torch.Tensor) -> torch.Tensor:
        """`[B, Q]` -> rows of the flattened ring, `[B, Q]`: one index is much quicker to look up than two."""
        return self._first + positions % self.values.shape[1]
