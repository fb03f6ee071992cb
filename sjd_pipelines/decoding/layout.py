"""The grid of image tokens: raster order, rows and columns, and positions whose token is forced."""

from dataclasses import dataclass, field

import torch

FREE = -1


@dataclass(frozen=True)
class ImageTokenLayout:
    """Where the tokens of one image stand.

    Positions are raster indices 0 .. num_tokens - 1. Ids are codebook ids; structural tokens (row ends, headers) have
    ids `codebook_size .. vocabulary_size - 1` and occur at forced positions only.

    Args:
        rows: rows of the grid.
        columns: codebook tokens per row.
        codebook_size: number of codebook entries.
        structural_tokens: how many structural ids follow the codebook ids.
        row_end: structural id that closes each row, or None.
        tail: structural ids that close the image.
    """

    rows: int
    columns: int
    codebook_size: int
    structural_tokens: int = 0
    row_end: int | None = None
    tail: tuple[int, ...] = field(default=())

    def __post_init__(self):
        if self.rows < 1 or self.columns < 1 or self.codebook_size < 1:
            raise ValueError("rows, columns and codebook_size must be at least 1.")
        structural = ([] if self.row_end is None else [self.row_end]) + list(self.tail)
        if any(not self.codebook_size <= token < self.vocabulary_size for token in structural):
            raise ValueError(
                f"Structural ids must lie in [{self.codebook_size}, {self.vocabulary_size}), got {structural}."
            )

    @property
    def width(self) -> int:
        """Positions per row, the row end included: the distance to the token above."""
        return self.columns + (self.row_end is not None)

    @property
    def num_tokens(self) -> int:
        return self.rows * self.width + len(self.tail)

    @property
    def vocabulary_size(self) -> int:
        return self.codebook_size + self.structural_tokens

    @property
    def has_forced(self) -> bool:
        return self.row_end is not None or bool(self.tail)

    def row(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.div(positions, self.width, rounding_mode="floor")

    def column(self, positions: torch.Tensor) -> torch.Tensor:
        return positions % self.width

    def forced_tokens(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """`[num_tokens]` int64: the forced id at each position, `FREE` (-1) where the model decides."""
        forced = torch.full((self.rows, self.width), FREE, dtype=torch.int64)
        if self.row_end is not None:
            forced[:, -1] = self.row_end
        return torch.cat([forced.flatten(), torch.tensor(self.tail, dtype=torch.int64)]).to(device)

    def image_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[B, num_tokens]` -> `[B, rows * columns]`: the codebook ids alone, without structural tokens."""
        grid = tokens[:, : self.rows * self.width].unflatten(1, (self.rows, self.width))  # [B, rows, width]
        return grid[:, :, : self.columns].flatten(1)
