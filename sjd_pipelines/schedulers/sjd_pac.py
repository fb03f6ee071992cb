"""SJD-PAC: coupled speculative Jacobi decoding with several guesses for the positions right after the front.

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

from ..declaration import Card, Setting, shown
from ..decoding.layout import ImageTokenLayout
from ..decoding.look import look_is_free
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.query import Query
from ..decoding.sampling import race
from ..decoding.target import Companion, Target
from .declaration import WindowOrAuto
from .draft_tree import DraftTree, draft_trees, nodes_of_full_tree
from .drafting import Initialise, sample_siblings
from .raster_window import DraftWindow, WindowState
from .rules.speculative import Drafted, Speculative
from .side_slots import beside
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


@dataclass
class SiblingState(WindowState):
    """Adds the tree of the pass that is running.

    Attributes:
        trees: by number of levels, from none on; every node above the last level has all children.
        tree: that of this pass. Its main line is the window's first drafts, the other nodes live after the window.
        siblings: `[B, D, K]` int64: guesses for the first positions of the window, the main line's first.
        moves: pairs of canvas slots to copy before the next pass; None: nothing moves.
    """

    trees: tuple[DraftTree, ...] = ()
    tree: DraftTree | None = None
    siblings: torch.Tensor | None = None
    moves: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass
class PathSlots:
    """What speaks for each position of the window: the path through the tree, then the main chain.

    Attributes:
        target: `[B, 1 + W, V]` float32, the model's law at each position.
        guesses: `[B, W]` int64: the drafts on the path.
        positions: `[B, 1 + W]` int64.
        uniforms: `[B, W]`: numbers in [0, 1) that decide over the drafts of the main chain.
        chosen: `[B, D]` bool: whether a sibling was accepted at each level.
        side: `[B, D]` int64: the path's nodes by `DraftTree.side_number`.
        left: `[B, D, V]` float32: the laws of what is sampled at each level if none was.
        state: the run before this pass is committed.
        noise: position-addressed random numbers.
        keep: `[B, W]` bool, which drafts passed, once that is known.
    """

    target: torch.Tensor
    guesses: torch.Tensor
    positions: torch.Tensor
    uniforms: torch.Tensor
    chosen: torch.Tensor
    side: torch.Tensor
    left: torch.Tensor
    state: SiblingState
    noise: PositionNoise
    keep: torch.Tensor | None = None

    @property
    def depth(self) -> int:
        """Levels of the tree."""
        return self.side.shape[1]


class SJDPACScheduler(DraftWindow):
    """Maximal coupling (`CoupledSJDScheduler`) plus a tree of siblings after the last committed token.

    The first `depth` positions of the window have `branches` guesses each, sampled without replacement from the law of
    the position, and every combination of them is verified: branches + ... + branches ** depth slots, of which
    `depth` are the window's own. The laws are those that the last pass left, so the tree costs no pass of its own.

    Args:
        window: drafts on the main chain, or "auto".
        branches: guesses per position in the tree; 1 is `CoupledSJDScheduler`.
        depth: positions in the tree; `branches ** depth` is at most 1024. The paper counts the committed
            token too: its D = 3 is 2 here.
        initialise: as in `SJDScheduler`.
    """

    label = "lossless"
    paper = "Kang et al. 2026, arXiv 2603.18599; recursive rejection as in Jeon et al. 2024, arXiv 2402.14160"
    card = Card(
        "SJD-PAC",
        "Coupled Speculative Jacobi that makes several guesses for the very next tokens and tries every combination. "
        "Fewer passes; each works on more tokens.",
        "Try it where the number of passes sets the time and not their width, as on a GPU with one picture at once.",
    )
    state_type = SiblingState
    acceptance = Speculative()

    @register_to_config
    def __init__(
        self,
        window: WindowOrAuto = 32,
        branches: Branching = 4,
        depth: Depth = 2,
        initialise: Initialise = "law-above",
    ):
        level = self.config.branches**self.config.depth
        if level > LARGEST_LEVEL:
            raise ValueError(f"branches ** depth must be at most {LARGEST_LEVEL}, got {shown(level)}.")

    @property
    def scratch(self) -> int:
        """Slots after the window that hold the tree, at most."""
        return nodes_of_full_tree(self.config.depth, self.config.branches) - self.config.depth

    def start(self, target: Target, companions: Mapping[str, Companion] | None = None) -> SiblingState:
        state = super().start(target, companions)
        depth, branches = self.config.depth, self._branches(target.layout)
        state.trees = draft_trees(nodes_of_full_tree(depth, branches), depth, branches, state.canvas.device)
        return state

    def ask(self, state: SiblingState, noise: PositionNoise) -> Query:
        """Returns a query of the window's slots and, after them, the nodes of the tree beside it."""
        main = super().ask(state, noise)
        window, front = state.window, state.committed[:, None]
        tree = state.tree = state.trees[min(window, len(state.trees) - 1)]
        state.siblings = self.draft(main, state, noise)
        depth, count = len(tree.levels), len(tree.side)

        level, (on_main, on_side) = tree.side_level, tree.side_paths
        # What each side node sees: the committed tokens, its path on the main line, and that after the window.
        parts = [on_main, on_main.new_zeros(count, window - depth), on_side, on_main.new_zeros(count, 1)]
        sight = torch.cat(parts, 1)  # [S, W + S + 2]: the last token, what follows it, what is after all that
        slots = torch.arange(main.visible.shape[-1], device=front.device)
        visible = sight[:, (slots - (front - 1)).clamp_(0, sight.shape[1] - 1)].transpose(0, 1)  # [B, S, L]
        tokens = state.siblings[:, level, tree.side_rank]
        return beside(main, tokens, front + level, front + window + slots[:count], visible, state.moves)

    def draft(self, main: Query, state: SiblingState, noise: PositionNoise) -> torch.Tensor:
        """Several guesses for the first positions of the window, its own draft first: `[B, D, K]` int64."""
        depth, branches = len(state.tree.levels), self._branches(state.layout)
        near = main.positions[:, 1 : depth + 1]  # [B, D]
        first = main.token_ids[:, 1 : depth + 1, None]
        if branches == 1:
            return first
        # Given the first sibling, the others have its law without it; fresh noise keeps them independent of it.
        exponential = noise.exponential(near, Purpose.SAMPLE, state.layout.vocabulary_size, state.draw)
        others = state.laws.read(near).scatter(-1, first, 0.0)
        return torch.cat([first, sample_siblings(others, exponential, branches - 1)], -1)

    def step(
        self, probabilities: torch.Tensor, query: Query, state: SiblingState, noise: PositionNoise
    ) -> SiblingState:
        slots = self._descend(probabilities, query, state, noise)
        slots.keep = self.accept(slots)
        tokens = self.redraft(slots)
        # The main chain goes on after its own node of the last level alone.
        kept, side, depth = slots.keep.clone(), slots.side, slots.depth
        kept[:, depth : depth + 1] &= side[:, -1:] < 0
        accepted = leading(kept)  # [B]

        state.canvas.scatter_(1, slots.positions, tokens)
        state.laws.write(slots.positions, slots.target)
        state.moves = None
        taken = (side >= 0) & (torch.arange(depth, device=side.device) < accepted[:, None])
        if not look_is_free(taken) or taken.any():
            targets = slots.positions[:, :depth]
            state.moves = (torch.where(taken, state.committed[:, None] + state.window + side, targets), targets)
        return state.advance(slots.positions, accepted + 1)

    def accept(self, slots: PathSlots) -> torch.Tensor:
        """Which drafts pass: one of the siblings at each level of the tree, each of the main chain on its own."""
        depth = slots.depth
        law_at = partial(slots.state.laws.at, slots.positions[:, depth:-1])
        target, drafts, window = slots.target[:, depth:-1], slots.guesses[:, depth:], slots.guesses.shape[1]
        chain = Drafted(target, drafts, law_at, span=window, depth=slice(depth, None))
        return torch.cat([slots.chosen, slots.state.acceptance.accept(chain, slots.uniforms[:, depth:])], 1)

    def redraft(self, slots: PathSlots) -> torch.Tensor:
        """What passed, and samples from the residual elsewhere, as `CoupledSJDScheduler`: `[B, 1 + W]` int64."""
        depth, (batch, window) = slots.depth, slots.guesses.shape
        rejected = depth + rejected_slots(slots.keep[:, depth:])  # [B, R]
        redrawn = pad(rejected, (0, 1), value=window)
        rows = torch.arange(batch, device=rejected.device)[:, None]
        draft_law = slots.state.laws.read(slots.positions.gather(1, rejected))  # [B, R, V]
        guesses = pad(slots.guesses, (0, 1))
        law = slots.state.acceptance.residual(slots.target[rows, redrawn], draft_law, guesses.gather(1, rejected))
        near = torch.arange(depth, device=rows.device).expand(batch, -1)
        redrawn = torch.cat([near, redrawn], 1)  # [B, D + R + 1]
        positions = slots.positions.gather(1, redrawn)
        exponential = slots.noise.exponential(positions, Purpose.RESIDUAL, law.shape[-1], slots.state.draw)
        tokens = guesses.scatter(1, redrawn, race(torch.cat([slots.left, law], 1), exponential))
        return torch.where(pad(slots.keep, (0, 1)), guesses, tokens)

    def _descend(
        self, probabilities: torch.Tensor, query: Query, state: SiblingState, noise: PositionNoise
    ) -> PathSlots:
        """Go down the tree by the siblings that pass."""
        tree, window, siblings = state.tree, state.window, state.siblings
        depth, branches = siblings.shape[1:]
        rows = torch.arange(len(siblings), device=siblings.device)[:, None]
        positions = query.predicts[:, : window + 1]  # [B, 1 + W]
        # A number per position and sibling: of all the nodes that use it only one is on the path that is taken.
        uniforms = noise.uniforms(positions[:, :-1], Purpose.ACCEPT, state.draw * branches, branches)  # [B, W, K]

        slot = torch.where(tree.side_number < 0, tree.depth, window + 1 + tree.side_number)  # [1 + N]: of the query
        node = torch.zeros_like(rows)
        nodes, chosen, path, rest = [], [], [probabilities[:, :1]], []
        draft_law = state.laws.read(positions[:, :depth])
        levels = zip(*(values.split(1, 1) for values in (draft_law, siblings, uniforms[:, :depth])))
        for step, level in enumerate(levels):
            passed, left = state.acceptance.choose(path[-1], *level, window, slice(step, step + 1))
            # Where no sibling passes, the first one's node is as near as any to the token sampled instead.
            node = tree.children[node, passed % branches]
            nodes.append(node)
            chosen.append(passed)
            path.append(probabilities[rows, slot[node]])
            rest.append(left)
        sibling = torch.cat(chosen, 1)  # [B, D]
        guesses = siblings.gather(2, sibling.clamp(max=branches - 1)[..., None])[..., 0]  # [B, D]
        return PathSlots(
            target=torch.cat([*path, probabilities[:, depth + 1 : window + 1]], 1),
            guesses=torch.cat([guesses, query.token_ids[:, depth + 1 : window + 1]], 1),
            positions=positions,
            uniforms=uniforms[..., 0],
            chosen=sibling < branches,
            side=tree.side_number[torch.cat(nodes, 1)],
            left=torch.cat(rest, 1),
            state=state,
            noise=noise,
        )

    def _branches(self, layout: ImageTokenLayout) -> int:
        return min(self.config.branches, layout.codebook_size)
