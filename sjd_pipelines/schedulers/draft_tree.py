"""The shape of a static draft tree: which sibling of which sibling is worth a slot."""

import heapq
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import log

import torch
from torch.nn.functional import pad

# Chance that a first sibling is accepted where its parent was, and what each sibling after it has of the one before.
FIRST_RANK, NEXT_RANK = 0.6, 0.3


@dataclass(frozen=True)
class Level:
    """The step from one level of the tree to the next.

    Attributes:
        inner: `[M]` int64: the nodes of this level that have children.
        branches: most children that one of them has.
        guesses: `[N]` int64: for each node of the next level its number among all children, `branches` of each node.
    """

    inner: torch.Tensor
    branches: int
    guesses: torch.Tensor


@dataclass(frozen=True)
class DraftTree:
    """Node 0 is the root, the last committed token; drafts follow level by level.

    Attributes:
        depth: `[1 + N]` int64, 0 for the root.
        ancestors: `[1 + N, 1 + N]` bool, each node its own among them.
        paths: `[1 + N, 1 + D]` int64: the nodes from the root to each one, which is repeated to the end.
        levels: the steps between levels.
        inner: `[M]` int64: all nodes with children, level by level.
        parents: `[M]` int64: their parents; the root's is itself.
        children: `[M, K]` int64: their children in order; where there are fewer, the first again.
        parent_of: `[N]` int64: for each draft the place of its parent in `inner`.
        rank: `[N]` int64: which sibling each draft is.
        main: `[1 + D]` int64: the main line, which goes from the root by first siblings alone.
        side: `[S]` int64: the nodes off it.
        side_number: `[1 + N]` int64: for each node its place in `side`, -1 on the main line.
    """

    depth: torch.Tensor
    ancestors: torch.Tensor
    paths: torch.Tensor
    levels: tuple[Level, ...]
    inner: torch.Tensor
    parents: torch.Tensor
    children: torch.Tensor
    parent_of: torch.Tensor
    rank: torch.Tensor
    main: torch.Tensor
    side: torch.Tensor
    side_number: torch.Tensor

    @property
    def size(self) -> int:
        """Nodes, the root included."""
        return len(self.depth)

    @cached_property
    def sights(self) -> torch.Tensor:
        """`[1 + N, 2 + N]` bool: the nodes that each one sees, and nothing after them."""
        return pad(self.ancestors, (0, 1))

    @cached_property
    def descents(self) -> torch.Tensor:
        """`[1 + N, 1 + N]` float32: 1 where a node (second) descends from another (first) or is it."""
        return self.ancestors.T.float()

    @cached_property
    def widths(self) -> list[int]:
        """Nodes with children, by level."""
        return [len(level.inner) for level in self.levels]

    @cached_property
    def inner_depth(self) -> torch.Tensor:
        """`[M]` int64: `depth` of the nodes with children."""
        return self.depth[self.inner]

    @cached_property
    def side_level(self) -> torch.Tensor:
        """`[S]` int64: which level after the root each side node is in, from 0 on."""
        return self.depth[self.side] - 1

    @cached_property
    def side_rank(self) -> torch.Tensor:
        """`[S]` int64: which sibling each side node is."""
        return self.rank[self.side - 1]

    @cached_property
    def side_paths(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`[S, 1 + D]` and `[S, S]` bool: the main nodes and the side nodes on the path to each side node."""
        path = self.ancestors[self.side]  # [S, 1 + N]
        return path[:, self.main], path[:, self.side]

    @property
    def is_chain(self) -> bool:
        return self.size == self.paths.shape[1]

    @classmethod
    def build(cls, paths: list[tuple[int, ...]], device: torch.device | str = "cpu") -> "DraftTree":
        """Make a tree of `likeliest_paths`, or of those that are not too long."""
        nodes = [(), *paths]
        index = {path: node for node, path in enumerate(nodes)}
        parent = [index[path[:-1]] for path in nodes]
        depth = max(map(len, nodes))
        chains = [[index[path[: min(step, len(path))]] for step in range(depth + 1)] for path in nodes]
        inner = sorted({index[path[:-1]] for path in paths})
        place = {node: number for number, node in enumerate(inner)}
        branches = max((path[-1] + 1 for path in paths), default=1)
        children = [[index.get((*nodes[node], rank), index[(*nodes[node], 0)]) for rank in range(branches)]
                    for node in inner]  # fmt: skip
        levels = []
        for level in range(depth):
            here = [node for node in inner if len(nodes[node]) == level]
            order = {node: place for place, node in enumerate(here)}
            below = [path for path in paths if len(path) == level + 1]
            most = 1 + max(path[-1] for path in below)
            levels.append(
                Level(
                    inner=_integers(here, device),
                    branches=most,
                    guesses=_integers([order[index[path[:-1]]] * most + path[-1] for path in below], device),
                )
            )
        side = [node for node, path in enumerate(nodes) if any(path)]
        number = {node: place for place, node in enumerate(side)}
        paths_of = _integers(chains, device)
        every = torch.arange(len(nodes), device=device)
        return cls(
            depth=_integers([len(path) for path in nodes], device),
            ancestors=(paths_of[:, :, None] == every).any(1),
            paths=paths_of,
            levels=tuple(levels),
            inner=_integers(inner, device),
            parents=_integers([parent[node] for node in inner], device),
            children=_integers(children, device).view(len(inner), branches),
            parent_of=_integers([place[index[path[:-1]]] for path in paths], device),
            rank=_integers([path[-1] for path in paths], device),
            main=_integers([node for node, path in enumerate(nodes) if not any(path)], device),
            side=_integers(side, device),
            side_number=_integers([number.get(node, -1) for node in range(len(nodes))], device),
        )


def nodes_of_full_tree(depth: int, branches: int) -> int:
    """How many drafts a tree has in which every node above the last level has all children."""
    return sum(branches**level for level in range(1, depth + 1))


def likeliest_paths(size: int, depth: int, branches: int) -> list[tuple[int, ...]]:
    """The best tree of `size` drafts: its nodes as the ranks on the way from the root, level by level.

    Where acceptance depends on the rank alone, the likeliest nodes make the tree with the most accepted drafts
    (Sequoia, Chen et al. 2024, arXiv 2402.12374; Medusa, Cai et al. 2024, arXiv 2401.10774).

    Args:
        size: drafts, at most.
        depth: longest path, at least 1.
        branches: most children of a node, at least 1.
    """
    heap = [(-log(FIRST_RANK), (0,))]
    paths = []
    while heap and len(paths) < size:
        cost, path = heapq.heappop(heap)
        paths.append(path)
        if len(path) < depth:
            heapq.heappush(heap, (cost - log(FIRST_RANK), (*path, 0)))
        if path[-1] + 1 < branches:
            heapq.heappush(heap, (cost - log(NEXT_RANK), (*path[:-1], path[-1] + 1)))
    return sorted(paths, key=lambda path: (len(path), path))


@lru_cache(maxsize=8)
def draft_trees(size: int, depth: int, branches: int, device: torch.device) -> tuple[DraftTree, ...]:
    """The tree of `likeliest_paths`, cut after each of its levels: number of levels -> tree."""
    paths = likeliest_paths(size, depth, branches)
    return tuple(
        DraftTree.build([path for path in paths if len(path) <= levels], device)
        for levels in range(len(paths[-1]) + 1)
    )


def _integers(values: list, device: torch.device | str) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)
