"""SJD-PAC: coupled speculative Jacobi decoding with several guesses for the positions right behind the front.

Proactive drafting is the tree, adaptive continuation the maximal coupling of redrafts with old drafts (Kang et al.
2026, arXiv 2603.18599). The paper's release tests siblings independently and takes the longest path, which is biased;
here the first sibling that passes is taken and the target shrinks with each that does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn.functional import pad

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.query import Query
from ..decoding.sampling import race
from ..decoding.state import DecodingState
from ..decoding.target import Companion
from .declaration import Card, Setting, WindowOrAuto, shown
from .drafting import Initialise, draw_siblings
from .rules.speculative import Drafted
from .speculative_jacobi import SJDScheduler
from .verification import leading, rejected_slots

LARGEST_LEVEL = 1024  # siblings on the last level of a tree

Branching = Annotated[
    int,
    Setting(
        "How many guesses are made for each of the next tokens. More saves passes, but each pass works on many more "
        "tokens: branches to the power of depth. 1 is Coupled Speculative Jacobi.",
        least=1,
        most=LARGEST_LEVEL,
    ),
]
Depth = Annotated[
    int,
    Setting(
        "For how many of the next tokens several guesses are made. More saves passes, but each pass works on many "
        "more tokens: branches to the power of depth.",
        least=1,
        most=64,
    ),
]


class SiblingTree:
    """A full tree of `branches` siblings per node; the first siblings are the main chain, the others scratch nodes.

    Nodes are numbered level by level: 0 is the last committed token, and node n has the children K n + 1 .. K n + K.

    Args:
        branches: K, siblings per node.
        depth: D, levels behind the committed token.
        device: where the tables are.

    Attributes:
        level: `[T]` int64 of each node.
        scratch: `[T]` int64: number of each node among the scratch nodes, -1 on the main chain.
        sibling: `[S]` int64: the node's number among its siblings, for scratch nodes.
        scratch_level: `[S]` int64: `level` of the scratch nodes.
        ancestry: `[S, D + S]` bool: which main chain levels (first D columns) and scratch nodes are on the path to
            each scratch node, itself included.
    """

    def __init__(self, branches: int, depth: int, device: torch.device | str = "cpu"):
        self.branches, self.depth = branches, depth
        parents = torch.arange(self.nodes(depth)).sub(1).div(branches, rounding_mode="floor")
        level = torch.cat([torch.full((branches**step,), step) for step in range(depth + 1)])
        chain = torch.tensor([self.nodes(step - 1) for step in range(depth + 1)])  # first of each level
        scratch = torch.ones_like(level).index_fill(0, chain, 0)
        nodes = scratch.nonzero()[:, 0]
        scratch = torch.where(scratch > 0, scratch.cumsum(0) - 1, -1)
        column = torch.where(scratch < 0, level - 1, depth + scratch)
        ancestry = torch.zeros(len(nodes), depth + len(nodes), dtype=torch.bool)
        index = torch.arange(len(nodes))
        ancestor = nodes
        for _ in range(depth):
            below = ancestor > 0  # the committed token has no column
            ancestry[index[below], column[ancestor[below]]] = True
            ancestor = parents[ancestor].clamp(min=0)
        self.level, self.scratch, self.ancestry = level.to(device), scratch.to(device), ancestry.to(device)
        self.sibling, self.scratch_level = ((nodes - 1) % branches).to(device), level[nodes].to(device)

    def nodes(self, depth: int) -> int:
        """How many nodes the tree has down to a level, the committed token included."""
        return sum(self.branches**level for level in range(depth + 1))

    def scratch_nodes(self, depth: int) -> int:
        """How many of them are scratch nodes."""
        return self.nodes(depth) - depth - 1


@dataclass
class SiblingState(DecodingState):
    """Adds the tree of the pass that is running.

    Attributes:
        tree: its shape; the levels in use are those of `siblings`.
        siblings: `[B, D, K]` int64: guesses for the first positions of the window, the main chain's first.
        moves: pairs of canvas slots to copy before the next pass; None: nothing moves.
    """

    tree: SiblingTree | None = None
    siblings: torch.Tensor | None = None
    moves: tuple[torch.Tensor, torch.Tensor] | None = None


class SJDPACScheduler(SJDScheduler):
    """Maximal coupling (`CoupledSJDScheduler`) plus a tree of siblings behind the last committed token.

    The first `depth` positions of the window have `branches` guesses each, drawn without replacement from the law of
    the position, and every combination of them is verified: branches + ... + branches ** depth slots, of which
    `depth` are the window's own. The laws are those that the last pass left, so the tree costs no pass of its own.

    Args:
        window: drafts on the main chain, or "auto".
        branches: guesses per position in the tree; 1 is `CoupledSJDScheduler`.
        depth: positions in the tree; `branches ** depth` is at most 1024. The paper counts the committed
            token too: its D = 3 is 2 here.
        initialise: as in `SJDScheduler`.
    """

    paper = "Kang et al. 2026, arXiv 2603.18599; recursive rejection as in Jeon et al. 2024, arXiv 2402.14160"
    card = Card(
        "SJD-PAC",
        "Coupled Speculative Jacobi that makes several guesses for the very next tokens and tries every combination. "
        "Fewer passes; each works on more tokens.",
        "Try it where the number of passes sets the time and not their width, as on a GPU with one picture at once.",
    )
    state_type = SiblingState

    @register_to_config
    def __init__(
        self,
        window: WindowOrAuto = 32,
        branches: Branching = 4,
        depth: Depth = 2,
        initialise: Initialise = "law-above",
    ):
        if branches**depth > LARGEST_LEVEL:
            raise ValueError(f"branches ** depth must be at most {LARGEST_LEVEL}, got {shown(branches**depth)}.")

    def margin(self, layout: ImageTokenLayout) -> int:
        tree = self._tree(layout)
        return super().margin(layout) + tree.scratch_nodes(tree.depth)

    def start(
        self,
        layout: ImageTokenLayout,
        batch_size: int,
        device: torch.device | str = "cpu",
        companions: Mapping[str, Companion] | None = None,
    ) -> SiblingState:
        state = super().start(layout, batch_size, device, companions)
        state.tree = self._tree(layout, device)
        return state

    def plan(self, state: SiblingState, noise: PositionNoise) -> Query:
        """Returns a query of the window's slots and, behind them, the scratch nodes of the tree."""
        main = super().plan(state, noise)
        tree, window, front = state.tree, state.window, state.committed[:, None]
        depth = min(tree.depth, window)
        count = tree.scratch_nodes(depth)
        near = main.positions[:, 1 : depth + 1]  # [B, D]
        first = main.token_ids[:, 1 : depth + 1, None]
        state.siblings = first
        if tree.branches > 1:
            # Given the first sibling, the others have its law without it; fresh noise keeps them independent of it.
            exponential = noise.exponential(near, Purpose.SAMPLE, state.layout.vocabulary_size, state.passes)
            others = state.laws.read(near).scatter(-1, first, 0.0)
            state.siblings = torch.cat([first, draw_siblings(others, exponential, tree.branches - 1)], -1)

        level = tree.scratch_level[:count] - 1
        ancestry = tree.ancestry[:count]
        # What each scratch node sees: the committed tokens, its path on the main chain, and that behind the window.
        parts = [
            ancestry.new_ones(count, 1),
            ancestry[:, :depth],
            ancestry.new_zeros(count, window - depth),
            ancestry[:, tree.depth : tree.depth + count],
            ancestry.new_zeros(count, 1),
        ]
        path = torch.cat(parts, 1)  # [count, W + count + 2]: the last token, what follows it, what is behind all that
        slots = torch.arange(main.visible.shape[-1] + count, device=front.device)
        visible = path[:, (slots - (front - 1)).clamp_(0, path.shape[1] - 1)].transpose(0, 1)  # [B, count, S]
        return Query(
            token_ids=torch.cat([main.token_ids, state.siblings[:, level, tree.sibling[:count]]], 1),
            positions=torch.cat([main.positions, front + level], 1),
            predicts=torch.cat([main.predicts, front + level + 1], 1),
            visible=torch.cat([pad(main.visible, (0, count)), visible], 1),
            slots=torch.cat([main.positions, front + window + slots[:count]], 1),
            moves=state.moves,
            prompt_end=main.prompt_end,
        )

    def step(
        self, probabilities: torch.Tensor, query: Query, state: SiblingState, noise: PositionNoise
    ) -> SiblingState:
        tree, window, siblings = state.tree, state.window, state.siblings
        branches, depth = tree.branches, siblings.shape[1]
        rows = torch.arange(len(siblings), device=siblings.device)[:, None]
        positions = query.predicts[:, : window + 1]  # [B, 1 + W]
        # A number per position and sibling: of all the nodes that use it only one is on the path that is taken.
        uniforms = noise.uniforms(positions[:, :-1], Purpose.ACCEPT, state.passes * branches, branches)  # [B, W, K]

        slot = torch.where(tree.scratch < 0, tree.level, window + 1 + tree.scratch)  # [T]: where each node is
        node = torch.zeros_like(rows)
        nodes, sibling, path, rest = [], [], [probabilities[:, :1]], []
        draft_law = state.laws.read(positions[:, :depth])
        for step, level in enumerate(
            zip(*(values.split(1, 1) for values in (draft_law, siblings, uniforms[:, :depth])))
        ):
            passed, left = self.acceptance.choose(path[-1], *level, span=window, depth=slice(step, step + 1))
            # Where no sibling passes, the first one's node is as near as any to the token drawn instead.
            node = branches * node + 1 + passed % branches
            nodes.append(node)
            sibling.append(passed)
            path.append(probabilities[rows, slot[node]])
            rest.append(left)
        sibling, scratch = torch.cat(sibling, 1), tree.scratch[torch.cat(nodes, 1)]  # [B, D]

        # What speaks for each position of the window: the tree's path, then the main chain.
        target = torch.cat([*path, probabilities[:, depth + 1 : window + 1]], 1)  # [B, 1 + W, V]
        drafts = query.token_ids[:, depth + 1 : window + 1]  # of the main chain
        law_at = partial(state.laws.at, positions[:, depth:-1])
        chain = Drafted(target[:, depth:-1], drafts, law_at, span=window, depth=slice(depth, None))
        keep = self.acceptance.accept(chain, uniforms[:, depth:, 0])
        guesses = siblings.gather(2, sibling.clamp(max=branches - 1)[..., None])[..., 0]  # [B, D]
        guesses = pad(torch.cat([guesses, drafts], 1), (0, 1))
        kept = torch.cat([sibling < branches, keep], 1)  # [B, W]
        rejected = depth + rejected_slots(keep)  # [B, R]
        redrawn = pad(rejected, (0, 1), value=window)
        draft_law = state.laws.read(positions.gather(1, rejected))  # [B, R, V]
        rest.append(self.acceptance.residual(target[rows, redrawn], draft_law, guesses.gather(1, rejected)))
        near = torch.arange(depth, device=rows.device).expand(len(siblings), -1)
        redrawn = torch.cat([near, redrawn], 1)  # [B, D + R + 1]
        exponential = noise.exponential(positions.gather(1, redrawn), Purpose.RESIDUAL, target.shape[-1], state.passes)
        tokens = guesses.scatter(1, redrawn, race(torch.cat(rest, 1), exponential))
        tokens = torch.where(pad(kept, (0, 1)), guesses, tokens)
        # The main chain goes on behind its own node of the last level alone.
        kept[:, depth : depth + 1] &= scratch[:, -1:] < 0
        accepted = leading(kept)  # [B]

        state.canvas.scatter_(1, positions, tokens)
        state.laws.write(positions, target)
        state.moves = None
        taken = (scratch >= 0) & (near < accepted[:, None])
        if taken.device.type != "cpu" or taken.any():  # a look that costs nothing on a CPU
            targets = positions[:, :depth]
            state.moves = (torch.where(taken, state.committed[:, None] + window + scratch, targets), targets)
        return state.advance(positions, accepted + 1)

    def _tree(self, layout: ImageTokenLayout, device: torch.device | str = "cpu") -> SiblingTree:
        return SiblingTree(min(self.config.branches, layout.codebook_size), self.config.depth, device)
