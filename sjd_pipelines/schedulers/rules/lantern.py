"""LANTERN's rule: a draft passes for its latent neighbours as well, up to a bound."""

from dataclasses import dataclass, replace

import torch
from torch.nn.functional import embedding

from ...decoding.target import Target
from ..verification import at_drafts
from .speculative import Drafted, Speculative

TABLES = 2  # that are kept of a model; each may be as large as 128 MiB


@dataclass(frozen=True)
class CodeTable:
    """The nearest entries of a codebook.

    Attributes:
        vectors: `[V, E]`, the codebook.
        nearest: as `nearest_codes` returns it.
    """

    vectors: torch.Tensor
    nearest: torch.Tensor

    def is_of(self, vectors: torch.Tensor) -> bool:
        return torch.equal(self.vectors, vectors)


@dataclass(frozen=True)
class Lantern(Speculative):
    """LANTERN (Jang et al. 2024, arXiv 2410.03355) and LANTERN++ (Park et al. 2025, arXiv 2502.06352).

    Over one token the total variation from the target is the gain in acceptance, as long as the residual is vanilla.

    Args:
        relaxation: the neighbours' mass is at most this (`additive`), or the sum at most this many times the draft's
            own probability.
        neighbours: how many may count.
        additive: how `relaxation` is meant: LANTERN, else LANTERN++.
        release: replace a rejected draft as LANTERN's code does, which lets its neighbours keep their probability in
            full; else from (p - q)_+.
        table: `[V, neighbours + 1]` int64, nearest first, where the rule is at work.
        lending: `[V, neighbours]` int64, those that lend probability.
    """

    relaxation: float
    neighbours: int
    additive: bool
    release: bool
    table: torch.Tensor | None = None
    lending: torch.Tensor | None = None

    def running(self, target: Target) -> "Lantern":
        vectors = target.codebook()
        count = self.neighbours + 1  # one more than lend probability: the release's residual takes it too

        def make() -> CodeTable:
            return CodeTable(vectors.clone(), nearest_codes(vectors, count))

        key = (count, vectors.device, vectors.dtype, vectors.shape)
        table = target.memory.recall("nearest codes", key, make, TABLES, lambda known: known.is_of(vectors)).nearest
        return replace(self, table=table, lending=table[:, : self.neighbours].contiguous())

    def masses(self, drafted: Drafted) -> tuple[torch.Tensor, torch.Tensor]:
        relief = self._relief(drafted.target, drafted.tokens, drafted.probability)
        return drafted.probability + relief, drafted.draft_probability

    def taken(self, target: torch.Tensor, draft_law: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
        if not self.release:
            return draft_law
        relaxed = self._relief(target, drafts, at_drafts(target, drafts)) > 0  # [...]
        without_neighbours = draft_law.scatter(-1, self.table[drafts.clamp(max=len(self.table) - 1)], 0.0)
        return torch.where(relaxed[..., None], without_neighbours, draft_law)

    def _relief(self, target: torch.Tensor, drafts: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
        """What the neighbours of each draft lend to its own probability: `[..., V]`, `[...]` twice -> `[...]`."""
        bound = self.relaxation if self.additive else (self.relaxation - 1) * probability[..., None]
        return neighbour_mass(target, drafts, self.lending, bound)


def nearest_codes(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` nearest other entries of a codebook, nearest first: `[V, E]` -> `[V, min(count, V - 1)]` int64."""
    vectors = vectors.float()
    tables = []
    for start in range(0, len(vectors), 1024):  # all pairs at once would take V * V floats
        distances = torch.cdist(vectors[start : start + 1024], vectors)
        rows = torch.arange(len(distances), device=vectors.device)
        distances[rows, start + rows] = torch.inf
        tables.append(distances.topk(min(count, len(vectors) - 1), -1, largest=False).indices)
    return torch.cat(tables)


def neighbour_mass(
    target: torch.Tensor, drafts: torch.Tensor, neighbours: torch.Tensor, bound: float | torch.Tensor
) -> torch.Tensor:
    """Target mass of a draft's latent neighbours, nearest first, as far as it stays within `bound`.

    LANTERN (Jang et al. 2024, arXiv 2410.03355) bounds it by a constant; LANTERN++ (Park et al. 2025,
    arXiv 2502.06352) by a multiple of p. The mass is the total variation of moving it all onto the draft.

    Args:
        target: `[B, W, V]` float32.
        drafts: `[B, W]` int64.
        neighbours: `[codes, k]` int64, nearest first.
        bound: a number, or one per draft `[B, W, 1]`.

    Returns:
        `[B, W]` float32.
    """
    if not neighbours.shape[1]:  # of a codebook of one entry
        return torch.zeros_like(target[..., 0])
    codes = drafts.clamp(max=len(neighbours) - 1)  # structural ids get a row without mass
    nearest = embedding(codes, neighbours)  # [B, W, k]
    reached = target.gather(-1, nearest).cumsum(-1)
    return reached.masked_fill(reached > bound, 0.0).amax(-1)
