"""The grids of image tokens: rows and columns, the order in which tokens are made, and tokens that are forced."""

from dataclasses import dataclass
from math import isqrt

import torch

FREE = -1
NOWHERE = -1  # stands for a neighbour that there is not


@dataclass(frozen=True)
class ImageTokenLayout:
    """Where the tokens of one image stand, and when each of them is made.

    A *cell* is a place: raster indices, grid after grid, then the tail. A *position* is a time: token p is the p-th
    that is made, 0 .. num_tokens - 1. In raster order, which is the default, both are the same number. Everything
    behind this class (canvas, queries, noise, laws) is addressed by position.

    Ids are codebook ids; structural tokens (row ends, headers) have ids `codebook_size .. vocabulary_size - 1` and
    occur at forced positions only.

    Args:
        rows: rows of the picture's grid.
        columns: codebook tokens per row.
        codebook_size: number of codebook entries.
        structural_tokens: how many structural ids follow the codebook ids.
        row_end: structural id that closes each row, or None.
        tail: structural ids that close the image.
        earlier_grids: `(rows, columns)` of grids that the model draws before the picture's own, which is the last.
        order: the cell of every position, a permutation; None is raster order.
        parallel: how many tokens the model makes at once, each blind to the others, after it has made as many one by
            one; 1 is one by one to the end. See `in_regions`.

    Raises:
        ValueError: a size below 1, a structural id out of range, an order that is no permutation, or tokens that do
            not come out even in groups of `parallel`, or are forced among them.
    """

    rows: int
    columns: int
    codebook_size: int
    structural_tokens: int = 0
    row_end: int | None = None
    tail: tuple[int, ...] = ()
    earlier_grids: tuple[tuple[int, int], ...] = ()
    order: tuple[int, ...] | None = None
    parallel: int = 1

    @classmethod
    def in_regions(cls, rows: int, columns: int, codebook_size: int, parallel: int) -> "ImageTokenLayout":
        """PAR's order (Wang et al. 2024, arXiv 2412.15119): one token of each of M x M regions in turn.

        Tokens at the same place of all regions follow one another, in raster order of the regions; the places follow
        in raster order, too.

        Args:
            rows: of the grid, a multiple of M.
            columns: of the grid, a multiple of M.
            codebook_size: number of codebook entries.
            parallel: M², as many tokens as there are regions.

        Raises:
            ValueError: `parallel` is no square, or regions do not come out even.
        """
        if parallel == 1:
            return cls(rows, columns, codebook_size)
        side = isqrt(max(parallel, 0))
        if parallel < 1 or side * side != parallel or rows % side or columns % side:
            raise ValueError(
                f"{rows} x {columns} tokens can't be cut into {parallel} equal regions, as many across as down."
            )
        cells = torch.arange(rows * columns, device="cpu").view(side, rows // side, side, columns // side)
        order = tuple(cells.permute(1, 3, 0, 2).flatten().tolist())
        return cls(rows, columns, codebook_size, order=order, parallel=parallel)

    def __post_init__(self):
        if min(self.codebook_size, *(side for grid in self.grids for side in grid)) < 1:
            raise ValueError("rows, columns and codebook_size must be at least 1.")
        structural = ([] if self.row_end is None else [self.row_end]) + list(self.tail)
        if any(not self.codebook_size <= token < self.vocabulary_size for token in structural):
            raise ValueError(
                f"Structural ids must lie in [{self.codebook_size}, {self.vocabulary_size}), got {structural}."
            )
        if self.order is not None and sorted(self.order) != list(range(self.num_tokens)):
            raise ValueError(f"order must be a permutation of {self.num_tokens} cells.")
        if self.parallel < 1 or self.num_tokens % self.parallel or (self.parallel > 1 and self.has_forced):
            raise ValueError(f"{self.num_tokens} tokens are not made {self.parallel} at once, none of them forced.")

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of all grids, the picture's own last."""
        return (*self.earlier_grids, (self.rows, self.columns))

    @property
    def width(self) -> int:
        """Cells per row of the picture, the row end included: the distance to the cell above."""
        return self.columns + self._row_ends

    @property
    def num_tokens(self) -> int:
        return sum(self._grid_cells) + len(self.tail)

    @property
    def sequential_passes(self) -> int:
        """Passes that make the image without guesses."""
        return self.parallel + (self.num_tokens - self.parallel) // self.parallel

    @property
    def vocabulary_size(self) -> int:
        return self.codebook_size + self.structural_tokens

    @property
    def has_forced(self) -> bool:
        return self.row_end is not None or bool(self.tail)

    @property
    def is_raster(self) -> bool:
        """Whether there is one grid, made row by row."""
        return self.order is None and not self.earlier_grids and self.parallel == 1

    def cells(self, length: int) -> torch.Tensor:
        """`[length >= num_tokens]` int64: the cell of each position; positions after the image are their own."""
        cells = torch.arange(length)
        if self.order is not None:
            cells[: self.num_tokens] = torch.tensor(self.order)
        return cells

    def neighbours(self, direction: str, length: int) -> torch.Tensor:
        """Where the neighbour of each position is made, to its `left` or `above` it.

        Returns:
            `[length]` int64 positions; `NOWHERE` at a grid's edge, and where the neighbour is made later. Positions
            after the image go on as further rows of it would.
        """
        sources, start = [], 0
        for (_, columns), count in zip(self.grids, [*self._grid_cells[:-1], length]):
            local = torch.arange(min(count, length - start))
            width = columns + self._row_ends
            source = local - width if direction == "above" else torch.where(local % width > 0, local - 1, NOWHERE)
            sources.append(torch.where(source >= 0, source + start, NOWHERE))
            start += len(local)
        source = torch.cat(sources)  # [length] cells
        if self.order is None:
            return source
        cells = self.cells(length)
        made = torch.empty_like(cells).scatter_(0, cells, torch.arange(length))  # the position of each cell
        source = source[cells]
        source = torch.where(source >= 0, made[source.clamp(min=0)], NOWHERE)
        return torch.where(source < torch.arange(length), source, NOWHERE)

    def reach(self, direction: str) -> int:
        """How long before a token its neighbour is made, at most."""
        source = self.neighbours(direction, self.num_tokens)
        return int(torch.where(source >= 0, torch.arange(self.num_tokens) - source, 0).max())

    def forced_tokens(self, device: torch.device | str = "cpu", length: int | None = None) -> torch.Tensor:
        """`[length]` int64 by position: the forced id, `FREE` (-1) where the model decides.

        By default that many as there are tokens. Positions after the image are given token 0.
        """
        grids = [torch.full((rows, columns + self._row_ends), FREE) for rows, columns in self.grids]
        if self.row_end is not None:
            for grid in grids:
                grid[:, -1] = self.row_end
        by_cell = torch.cat([*(grid.flatten() for grid in grids), torch.tensor(self.tail, dtype=torch.int64)])
        forced = torch.zeros(length or self.num_tokens, dtype=torch.int64)
        forced[: self.num_tokens] = by_cell[self.cells(self.num_tokens)]
        return forced.to(device)

    def picture(self, values: torch.Tensor) -> torch.Tensor:
        """Values by position to the picture's grid, row ends included: `[B, num_tokens]` -> `[B, rows, width]`."""
        if self.order is not None:
            values = torch.empty_like(values).index_copy_(1, self.cells(self.num_tokens).to(values.device), values)
        start = sum(self._grid_cells[:-1])
        return values[:, start : start + self._grid_cells[-1]].unflatten(1, (self.rows, self.width))

    def image_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[B, num_tokens]` by position -> `[B, rows * columns]`: the picture's codebook ids in raster order."""
        return self.picture(tokens)[:, :, : self.columns].flatten(1)

    @property
    def _row_ends(self) -> int:
        return int(self.row_end is not None)

    @property
    def _grid_cells(self) -> list[int]:
        """Cells of each grid, row ends included."""
        return [rows * (columns + self._row_ends) for rows, columns in self.grids]
