"""Seeded Jacobi decoding with margin-guided branches: where the choice was close, the runner-up is verified as well.

Under seeded exact-match verification any guess is allowed, so a tree needs no recursive rejection and no draft laws:
whichever path agrees with the seeded choices is the path of sequential decoding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn.functional import embedding

from ..declaration import Card, Setting
from ..decoding.noise import PositionNoise
from ..decoding.query import Query
from ..decoding.sampling import most_likely
from ..decoding.target import Companion, Target
from .declaration import Window
from .drafting import Initialise
from .raster_window import DraftWindow, WindowState
from .rules.exact_match import exact_match
from .side_slots import beside
from .verification import at_drafts, leading

FRESH_DOUBT = 0.5  # chance that a token no pass has seen yet will change
NO_TOKEN = -1

Branching = Annotated[
    int,
    Setting(
        "How many close choices are tried both ways per pass. More saves passes; each makes passes slower by depth "
        "tokens.",
        least=1,
        most=64,
    ),
]
Depth = Annotated[
    int,
    Setting(
        "How far each of those side ways is followed. Longer saves passes where guesses are good; each token makes "
        "passes slower.",
        least=1,
        most=64,
    ),
]


@dataclass
class Branches:
    """Runners-up and what follows them.

    Attributes:
        index: `[B, K]` int64: the window slot whose draft the branch replaces.
        positions: `[B, K]` int64: that slot's position.
        tokens: `[B, K, D]` int64: the runner-up, then guesses for the positions after it.
        slots: `[B, K, D]` int64: where on the canvas they live.
        visible: `[B, K, D, S]` bool: what they see, the window before them and their own branch.
    """

    index: torch.Tensor
    positions: torch.Tensor
    tokens: torch.Tensor
    slots: torch.Tensor
    visible: torch.Tensor


@dataclass
class TreeState(WindowState):
    """Adds what choosing branches needs.

    Attributes:
        runner_up: `[B, L]` int64: second choice at each position, `NO_TOKEN` where none is known.
        doubt: `[B, L]` float32: estimated chance that the draft at a position will change.
        branches: those of the pass that is running.
        continued: the branches of the last pass with their guesses refreshed, to be used again.
        path: `[B, 1 + W]` int64: the slot of the last query that speaks for each place of the window: a branch's where
            that was taken, else the main chain's.
        moves: pairs of canvas slots to copy before the next pass.
    """

    runner_up: torch.Tensor | None = None
    doubt: torch.Tensor | None = None
    branches: Branches | None = None
    continued: Branches | None = None
    path: torch.Tensor | None = None
    moves: tuple[torch.Tensor, torch.Tensor] | None = None


class TreeJacobiScheduler(DraftWindow):
    """Token-identical to `AutoregressiveScheduler` for the same seed, in fewer passes than `SeededJacobiScheduler`.

    Each pass verifies a chain of `window` drafts and `branches` side chains of `depth` tokens. A side chain starts
    with the second-best perturbed token of a window slot where the margin was small, weighted by the chance that
    everything before it holds.

    Args:
        window: drafts on the main chain.
        branches: side chains per pass.
        depth: tokens of a side chain.
        initialise: how a slot that enters the window is guessed, a key of `INITIALISERS`.
    """

    label = "exact"
    paper = "this package; seeded verification after Wiggers & Hoogeboom 2020, arXiv 2002.09928"
    card = Card(
        "Tree Jacobi",
        "Seeded Jacobi that also tries the runner-up where a choice was close: fewer passes still, and not a pixel "
        "differs. Each pass works on more tokens.",
        "Try it where the number of passes sets the time and not their width, as on a GPU with one picture at once.",
    )
    state_type = TreeState
    shares_noise = True
    stores_laws = False

    @register_to_config
    def __init__(
        self, window: Window = 32, branches: Branching = 4, depth: Depth = 8, initialise: Initialise = "law-above"
    ):
        pass

    @property
    def scratch(self) -> int:
        """Slots after the window that hold the branches."""
        return self.config.branches * self.config.depth

    @property
    def noise_ahead(self) -> int:
        return self.config.depth - 1

    def start(self, target: Target, companions: Mapping[str, Companion] | None = None) -> TreeState:
        state = super().start(target, companions)
        state.runner_up = torch.full_like(state.canvas, NO_TOKEN)
        state.doubt = torch.full_like(state.canvas, FRESH_DOUBT, dtype=torch.float32)
        return state

    def ask(self, state: TreeState, noise: PositionNoise) -> Query:
        main = super().ask(state, noise)
        branches = state.branches = self.draft(main, state)
        positions = branches.positions[..., None] + torch.arange(
            branches.tokens.shape[-1], device=main.positions.device
        )
        side = (values.flatten(1, 2) for values in (branches.tokens, positions, branches.slots, branches.visible))
        return beside(main, *side, state.moves)

    def draft(self, main: Query, state: TreeState) -> Branches:
        """Choose where to branch off the main chain and with which tokens; the drafts of `main` may be changed."""
        positions = state.committed[:, None] + torch.arange(state.window, device=state.canvas.device)  # [B, W]
        doubt = state.doubt.gather(1, positions)
        reach = (1 - doubt).cumprod(1) / (1 - doubt)  # chance that all drafts before a slot hold
        value = (reach * doubt).masked_fill(state.runner_up.gather(1, positions) == NO_TOKEN, 0.0)
        # Branches that no place of the image is left for stand after it, where nothing comes of them.
        useful = (state.layout.num_tokens - state.committed.min()).clamp(max=state.window)
        value = value.masked_fill(torch.arange(state.window, device=value.device) >= useful, -1.0)
        worth, index = value.topk(min(self.config.branches, state.window), 1)  # [B, K]
        index = torch.where(worth >= 0, index, useful)
        at = positions.gather(1, index)
        first = state.runner_up.gather(1, at).clamp(min=0)[..., None]  # [B, K, 1]

        after = at[..., None] + torch.arange(1, self.config.depth, device=at.device)  # [B, K, D - 1]
        rest = state.canvas.gather(1, after.flatten(1)).unflatten(1, after.shape[1:])
        if state.continued is not None:
            old = state.continued
            same = (old.positions[:, None] == at[..., None]) & (old.tokens[:, None, :, 0] == first)
            source = same.long().argmax(-1)[..., None].expand_as(rest)  # [B, K, D - 1]
            rest = torch.where(
                same.any(-1, keepdim=True), old.tokens[..., 1 : self.config.depth].gather(1, source), rest
            )
        return Branches(index, at, torch.cat([first, rest], -1), *self.branch_slots(at, main, state))

    def branch_slots(
        self, positions: torch.Tensor, main: Query, state: TreeState
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Slots of the branches from `positions` `[B, K]` on, and what they see: `[B, K, D]`, `[B, K, D, S]`."""
        batch, count = positions.shape
        size = count * self.config.depth
        slots = state.committed[:, None] + state.window + torch.arange(size, device=positions.device)
        slots = slots.view(batch, count, self.config.depth)
        slot = torch.arange(main.visible.shape[-1], device=positions.device)
        before = slot < positions[:, :, None, None]  # [B, K, 1, S]: what the main chain holds there
        own = (slot >= slots[:, :, :1, None]) & (slot <= slots[..., None])  # [B, K, D, S]
        return slots, before | own

    def step(self, probabilities: torch.Tensor, query: Query, state: TreeState, noise: PositionNoise) -> TreeState:
        window, branches = state.window, state.branches
        count, depth = branches.tokens.shape[1:]
        scores = probabilities / state.shared_noise.read(query.predicts)  # [B, Q, V]
        choices = most_likely(scores)
        best = at_drafts(scores, choices)
        scores.scatter_(-1, choices[..., None], -1.0)
        runner_up = most_likely(scores)
        doubt = 0.5 * at_drafts(scores, runner_up) / best

        accepted = leading(exact_match(query.token_ids[:, 1 : window + 1], choices[:, :window]))  # [B]
        side = choices[:, window + 1 :].unflatten(1, (count, depth))  # [B, K, D]: choices after each branch token
        correct = choices.gather(1, accepted[:, None])  # [B, 1]
        taken = (branches.index == accepted[:, None]) & (branches.tokens[..., 0] == correct)  # [B, K], one at most
        hit = taken.any(1)
        chosen = taken.long().argmax(1)
        followed = leading(exact_match(branches.tokens[..., 1:], side[..., :-1]).flatten(0, 1)).unflatten(
            0, (-1, count)
        )
        followed = followed.gather(1, chosen[:, None])[:, 0]  # [B]: tokens after the runner-up that hold
        gained = torch.where(hit, (accepted + 2 + followed).clamp(max=window + 1), accepted + 1)

        # The query slot whose output speaks for each window position: the branch's where it was taken.
        index = torch.arange(window + 1, device=gained.device).expand(len(gained), -1)
        after = index - accepted[:, None] - 1
        on_branch = hit[:, None] & (after >= 0) & (after < depth)
        state.path = path = torch.where(on_branch, window + 1 + chosen[:, None] * depth + after, index)  # [B, 1 + W]
        positions = query.predicts[:, : window + 1]
        state.canvas.scatter_(1, positions, choices.gather(1, path))
        state.runner_up.scatter_(1, positions, runner_up.gather(1, path))
        state.doubt.scatter_(1, positions, doubt.gather(1, path))
        if state.laws is not None:
            rows = torch.arange(len(gained), device=gained.device)[:, None] * probabilities.shape[1]
            state.laws.write(positions, embedding(rows + path, probabilities.flatten(0, 1)))

        # Keys and values of the branch move to their positions; those that did not hold are overwritten there.
        steps = torch.arange(depth, device=gained.device)
        targets = (state.committed + accepted)[:, None] + steps
        sources = (state.committed + window + chosen * depth)[:, None] + steps
        state.moves = (torch.where(hit[:, None], sources, targets), targets)
        state.continued = replace(branches, tokens=torch.cat([branches.tokens[..., :1], side], -1))
        return state.advance(positions, gained)
