"""Decoding with a draft model: a chain or a static tree of its guesses, verified in one forward pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import Card, Setting
from ..decoding.drafter import Drafter, DraftQuery
from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.query import Query
from ..decoding.sampling import inverse_transform, race
from ..decoding.target import Companion, Target
from .base import DecodingScheduler, RunState
from .draft_tree import DraftTree, draft_trees
from .drafting import sample_siblings
from .rules.exact_match import matching_sibling
from .rules.speculative import Speculative

TreeWindow = Annotated[
    int,
    Setting(
        "Tokens guessed ahead per forward pass, over all branches. Larger windows save passes until guesses stop "
        "being accepted; every pass gets a little slower and needs more memory.",
        least=1,
        most=1024,
    ),
]
Depth = Annotated[
    int,
    Setting(
        "How many tokens ahead the draft model looks. Further saves passes where it is good; each step costs a run of "
        "the draft model.",
        least=1,
        most=64,
    ),
]
Branching = Annotated[
    int,
    Setting(
        "How many guesses for one place are tried at most. More saves passes where the draft model is unsure; 1 "
        "spends the whole window on a single line of guesses.",
        least=1,
        most=64,
    ),
]


@dataclass
class EagleState(RunState):
    """Adds the tree of the running pass.

    Attributes:
        trees: by number of levels, from none on.
        tree: that of this pass.
        draft_laws: `[B, M, V]` float32: what the children of each inner node were sampled from.
        encoded: `[B]` int64: tokens that have gone through the drafter with the target's own hidden states.
        moves: pairs of canvas slots to copy before the next pass.
    """

    trees: tuple[DraftTree, ...] = ()
    tree: DraftTree | None = None
    draft_laws: torch.Tensor | None = None
    encoded: torch.Tensor | None = None
    moves: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def drafter(self) -> Drafter:
        """The draft model at work on this run."""
        return self.companions["drafter"]


@dataclass
class TreeSlots:
    """The slots of one pass as verification sees them.

    Attributes:
        target: `[B, 1 + N, V]` float32, the model's law after each node.
        positions: `[B, 1 + N]` int64, what the nodes predict.
        siblings: `[B, M, K]` int64, the guesses after each inner node.
        tree: their topology.
        state: the run before this pass is committed.
        noise: position-addressed random numbers.
        left: `[B, 1 + N, V]` float32, once that is known: the law of what follows each node if no child is accepted.
        end: `[B]` int64, once that is known: the node where the accepted path ends.
    """

    target: torch.Tensor
    positions: torch.Tensor
    siblings: torch.Tensor
    tree: DraftTree
    state: EagleState
    noise: PositionNoise
    left: torch.Tensor | None = None
    end: torch.Tensor | None = None

    def at_end(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the node where the accepted path ends: `[B, 1 + N, ...]` -> `[B, 1, ...]`."""
        rows = torch.arange(len(values), device=values.device)
        return values[rows, self.end][:, None]


class EagleScheduler(DecodingScheduler):
    """EAGLE: a draft model continues the picture, and the target keeps what it would have drawn itself.

    Siblings are sampled without replacement and verified by exact recursive rejection. The pipeline needs a `drafter`.

    Args:
        window: drafts per pass. They are spent on the tree that is likeliest to be accepted far.
        depth: passes of the drafter before each pass of the target, which is how far a tree reaches.
        branches: guesses at one position at most; 1 makes the tree a chain.
    """

    label = "lossless"
    paper = "Li et al. 2024, arXiv 2401.15077"
    card = Card(
        "EAGLE",
        "A small draft model guesses how the picture goes on, several ways at once; the model keeps what it would "
        "have drawn itself. Needs a model that comes with a draft model.",
        "Try it with a draft model trained for the very model; one that guesses badly costs time and changes nothing "
        "else.",
    )
    companions = ("drafter",)
    raster_only = True  # a drafter has rows and columns in its rotary positions
    acceptance = Speculative()
    state_type = EagleState

    @register_to_config
    def __init__(self, window: TreeWindow = 16, depth: Depth = 6, branches: Branching = 3):
        pass

    def margin(self, layout: ImageTokenLayout) -> int:
        return max(self.window, self.config.depth) + 2

    def start(self, target: Target, companions: Mapping[str, Companion] | None = None) -> EagleState:
        state, layout = super().start(target, companions), target.layout
        depth, branches = min(self.config.depth, layout.num_tokens), min(self.config.branches, layout.codebook_size)
        state.trees = draft_trees(self.window, depth, branches, state.canvas.device)
        state.encoded = torch.zeros_like(state.committed)
        return state

    def prepare(self, state: EagleState, noise: PositionNoise) -> None:
        # No hidden state, no drafts: the first pass has none. Near the end part of the tree stands after the image.
        tree = state.tree = state.trees[-1 if state.passes else 0]
        state.share_noise(noise, len(tree.levels) + 1, len(state.trees))
        state.window = tree.size - 1
        state.reads = state.extent(max(state.counts) + tree.size - 1)

    def ask(self, state: EagleState, noise: PositionNoise) -> Query:
        tree = state.tree
        root = (state.committed[:, None] - 1).clamp(min=0)
        tokens = state.canvas.gather(1, root)
        visible = self._visible(state)
        if tree.levels:
            tokens = self._draft(tokens, visible, state)
        nodes = torch.arange(tree.size, device=root.device)
        predicts = state.committed[:, None] + tree.depth
        return Query(tokens, root + tree.depth, predicts, visible, root + nodes, state.moves, state.passes == 0)

    def step(self, probabilities: torch.Tensor, query: Query, state: EagleState, noise: PositionNoise) -> EagleState:
        tree, positions = state.tree, query.predicts
        children = query.token_ids.index_select(1, tree.children.flatten())
        siblings = children.unflatten(1, tree.children.shape)  # [B, M * K] -> [B, M, K]
        slots = TreeSlots(probabilities, positions, siblings, tree, state, noise, left=probabilities)
        accepted = self.accept(slots) if tree.levels else children

        # A node is reached if no node on its path was refused.
        refused = torch.zeros_like(positions, dtype=torch.float32)
        refused[:, 1:] = accepted.index_select(1, tree.parent_of) != tree.rank
        reached = refused @ tree.descents == 0  # [B, 1 + N]
        gained = reached.sum(1)
        slots.end = (reached * torch.arange(tree.size, device=reached.device)).amax(1)  # [B], the furthest node
        path = tree.paths[slots.end]  # [B, 1 + D]

        token = self.redraft(slots)  # [B, 1]
        drafts = query.token_ids.gather(1, path[:, 1:])
        steps = torch.arange(path.shape[1], device=path.device)
        tokens = torch.where(steps < gained[:, None] - 1, torch.cat([drafts, token], 1), token)
        committed = state.committed[:, None] + steps  # [B, 1 + D]
        state.canvas.scatter_(1, committed, tokens)

        # Keys, values and hidden states of the accepted path move to their positions.
        targets = committed[:, :-1]
        sources = state.committed[:, None] - 1 + path[:, 1:]
        sources = torch.where(steps[:-1] < gained[:, None] - 1, sources, targets)  # the others stay
        state.moves = None if tree.is_chain else (sources, targets)
        state.encoded = state.committed
        return state.advance(committed, gained)

    def accept(self, slots: TreeSlots) -> torch.Tensor:
        """Which child of each inner node is accepted, `[B, M]` int64 (K: none); says what is left of the target."""
        tree = slots.tree
        # Nodes at one position may share numbers: of those, one path sees one only. So may passes: the numbers of a
        # position decide in the pass that commits it, and in no other.
        inner = slots.positions.index_select(1, tree.inner)
        uniforms = slots.noise.uniforms(inner, Purpose.ACCEPT, 0, slots.siblings.shape[-1])  # [B, M, K]
        target = slots.target.index_select(1, tree.inner)
        span = len(tree.levels)

        def useful() -> torch.Tensor:
            return (slots.state.layout.num_tokens - slots.positions.amin(1, keepdim=True)).clamp(1, span)

        accepted, left = slots.state.acceptance.choose(
            target, slots.state.draft_laws, slots.siblings, uniforms, span, tree.inner_depth, useful
        )
        slots.left = slots.target.index_copy(1, tree.inner, left)
        return accepted

    def redraft(self, slots: TreeSlots) -> torch.Tensor:
        """The token after the accepted path: `[B, 1]` int64."""
        numbers = slots.noise.uniform(slots.at_end(slots.positions), Purpose.RESIDUAL)
        return inverse_transform(slots.at_end(slots.left), numbers)

    def _draft(self, root_token: torch.Tensor, visible: torch.Tensor, state: EagleState) -> torch.Tensor:
        """Let the drafter fill the tree, whose nodes see `visible` `[B, 1 + N, S]`: `[B, 1 + N]` tokens."""
        tree, root = state.tree, state.committed[:, None] - 1
        tokens, laws = root_token, []
        # As in verification, siblings of different parents and passes may share noise.
        positions = state.committed[:, None] + torch.arange(len(tree.levels), device=root.device)  # [B, D]
        exponentials = state.shared_noise.read(positions).split(1, 1)
        # What the drafter is told of the nodes with children: position, sight, slot and parent's slot, level by level.
        places = root + tree.depth  # [B, 1 + N]
        told = places.index_select(1, tree.inner), visible.index_select(1, tree.inner), root + tree.inner
        told = zip(*(values.split(tree.widths, 1) for values in (*told, root + tree.parents)))
        for level, (places, sight, slots, parents), exponential in zip(tree.levels, told, exponentials):
            if laws:
                token_ids = tokens.index_select(1, level.inner)
                query = DraftQuery(token_ids, places, places + 1, sight, slots, parents=parents)
            else:
                query = self._catch_up(state)
            law = state.drafter.laws(query)  # [B, M, V]
            siblings = sample_siblings(law, exponential, level.branches)  # [B, M, K]
            tokens = torch.cat([tokens, siblings.flatten(1).index_select(1, level.guesses)], 1)
            laws.append(law)
        state.draft_laws = torch.cat(laws, 1)
        return tokens

    def _visible(self, state: EagleState) -> torch.Tensor:
        """What each node sees, the committed tokens and its ancestors: `[B, 1 + N, S]` bool over canvas slots."""
        tree, root = state.tree, state.committed[:, None] - 1
        offset = torch.arange(state.reads, device=root.device) - root  # [B, S], 0 at the root
        return tree.sights[:, offset.clamp(0, tree.size)].transpose(0, 1)

    def _catch_up(self, state: EagleState) -> DraftQuery:
        """The tokens committed since the drafter last ran, whose hidden states the target has computed."""
        # A row that gained less than the furthest one needs fewer; its surplus is overwritten before it is seen.
        positions = state.encoded[:, None] + torch.arange(state.furthest(len(state.trees)), device=state.canvas.device)
        extent = torch.arange(state.reads, device=positions.device)
        return DraftQuery(
            token_ids=state.canvas.gather(1, positions),
            positions=positions,
            predicts=positions + 1,
            visible=extent <= positions[..., None],
            moves=state.moves,
            wanted=(state.committed - state.encoded - 1).clamp(min=0)[:, None],
        )


class SeededEagleScheduler(EagleScheduler):
    """EAGLE drafts sampled with the noise of the target: token-identical to `AutoregressiveScheduler`.

    A guess holds if it equals argmax(p / noise). The drafter guesses argmax(q / noise) and the runners-up, which are
    its siblings without replacement.

    Args:
        window: drafts per pass. They are spent on the tree that is likeliest to be accepted far.
        depth: passes of the drafter before each pass of the target, which is how far a tree reaches.
        branches: guesses at one position at most; 1 makes the tree a chain.
    """

    label = "exact"
    paper = "this package; drafts after Li et al. 2024, arXiv 2401.15077"
    card = Card(
        "Seeded EAGLE",
        "A small draft model guesses what the seed will choose; the model keeps the guesses that are right: fewer "
        "passes than sequential, and not a pixel differs. Needs a model that comes with a draft model.",
        "The picture to compare with is that of SJD Decoder: Sequential with the same seed.",
    )

    def accept(self, slots: TreeSlots) -> torch.Tensor:
        tree = slots.tree
        exponential = slots.state.shared_noise.read(slots.positions.index_select(1, tree.inner))
        choices = race(slots.target.index_select(1, tree.inner), exponential)  # [B, M]
        return matching_sibling(slots.siblings, choices)

    def redraft(self, slots: TreeSlots) -> torch.Tensor:
        return race(slots.at_end(slots.target), slots.state.shared_noise.read(slots.at_end(slots.positions)))
