"""The loop that the raster-window family shares: a window of drafts right behind the committed prefix.

A member of the family makes three choices: how a slot that enters the window is initialised, how a draft is accepted,
and how the slots behind the first rejection are redrafted.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch.nn.functional import pad

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.sampling import race
from ..decoding.state import DecodingState, Query
from .adaptive_window import AUTO, WINDOWS, WindowPolicy
from .base import DecodingScheduler
from .drafting import INITIALISERS, FreshSlots, one_hot
from .verification import leading, rejected_slots, residual_sample


@dataclass
class Slots:
    """The slots of one pass, as the three choices see them. Slot W, behind the last draft, has none.

    Attributes:
        target: `[B, W + 1, V]` float32, the model's law at each slot given the drafts before it.
        drafts: `[B, W]` int64.
        positions: `[B, W + 1]` int64 raster indices.
        state: the run before this pass is committed.
        noise: position-addressed random numbers.
        keep: `[B, W]` bool, which drafts passed, once that is known.
    """

    target: torch.Tensor
    drafts: torch.Tensor
    positions: torch.Tensor
    state: DecodingState
    noise: PositionNoise
    keep: torch.Tensor | None = None

    @cached_property
    def draft_law(self) -> torch.Tensor:
        """`[B, W, V]`: the law each draft was drawn from."""
        return self.state.laws.read(self.positions[:, :-1])

    @cached_property
    def seeded_choice(self) -> torch.Tensor:
        """`[B, W + 1]` int64: argmax(p / noise), the noise fixed per position."""
        noise = self.noise.exponential(self.positions, Purpose.SAMPLE, self.target.shape[-1])
        return race(self.target, noise)

    @cached_property
    def residual_choice(self) -> torch.Tensor:
        """`[B, W + 1]` int64: what slots take whose draft is rejected, and slot W; of no use where `keep` says so."""
        rejected = rejected_slots(self.keep)  # [B, R]
        slots = pad(rejected, (0, 1), value=self.keep.shape[1])
        rows = torch.arange(len(slots), device=slots.device)[:, None]
        target, draft_law = self.target[rows, slots], self.draft_law[rows, rejected]
        tokens = residual_sample(target, draft_law, self.positions.gather(1, slots), self.noise, self.state.passes)
        return torch.zeros_like(self.positions).scatter_(1, slots, tokens)

    @cached_property
    def likeliest(self) -> torch.Tensor:
        """`[B, W + 1]` int64: argmax p."""
        return self.target.argmax(-1)

    def at(self, values: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """Values of one slot per row: `[B, Q, ...]`, `[B]` -> `[B, 1, ...]`."""
        rows = torch.arange(len(slot), device=slot.device)
        return values[rows, slot][:, None]


class RasterWindowScheduler(DecodingScheduler):
    """Base of the family. Subclasses set `label` and `paper` and define `accept`, `commit` and `redraft`."""

    # Drafts and initial guesses of one position share one noise vector (Gumbel coupling) or take fresh noise.
    shares_noise: ClassVar[bool] = False
    # Verification compares drafts with the law they were drawn from.
    stores_laws: ClassVar[bool] = True
    # What `start` returns.
    state_type: ClassVar[type[DecodingState]] = DecodingState

    @abstractmethod
    def accept(self, slots: Slots) -> torch.Tensor:
        """Which drafts pass, each on its own: `[B, W]` bool."""

    @abstractmethod
    def commit(self, slots: Slots, accepted: torch.Tensor) -> torch.Tensor:
        """The token committed behind `accepted` `[B]` leading drafts: `[B, 1]` int64."""

    @abstractmethod
    def redraft(self, slots: Slots, keep: torch.Tensor) -> torch.Tensor:
        """New guesses for every slot: `[B, W + 1]` int64. Their law must be `slots.target`."""

    @property
    def window(self) -> int:
        """Drafts verified per pass; with `window="auto"` the most there can be."""
        return WINDOWS[-1] if self._adapts else self.config.window

    @cached_property
    def window_policy(self) -> WindowPolicy:
        """Chooses the window of each pass if `window` is "auto"; what it learns stays for the next picture."""
        return WindowPolicy()

    def margin(self, layout: ImageTokenLayout) -> int:
        return min(self.window, layout.num_tokens)

    def start(self, layout: ImageTokenLayout, batch_size: int, device: torch.device | str = "cpu") -> DecodingState:
        window = min(self.window, layout.num_tokens)
        law_slots = 0
        if window and (self.stores_laws or self._initial.startswith(("sample", "law"))):
            # The window, as many slots again for the surplus of `_initialise`, and the neighbours it looks up.
            law_slots = 2 * window + 2 + (layout.width if self._initial.endswith("above") else 0)
        if self._adapts:
            self.window_policy.start(layout.num_tokens, (batch_size, torch.device(device)))
        return self.state_type.empty(layout, batch_size, window + 1, law_slots, device)

    def plan(self, state: DecodingState, noise: PositionNoise) -> Query:
        """Top up the window and say what the next forward pass computes.

        Returns:
            A query of Q = 1 + W slots: the last committed token, then the drafts.
        """
        # Near the end the window shrinks to what the slowest row can use; no row loses a slot of the image.
        window = min(self._next_window(state), state.layout.num_tokens - min(state.counts))
        # Slots up to the old window's end hold redrafts; the host knows how many enter without asking the device.
        fresh = max(count + window - reach for count, reach in zip(state.counts, state.reaches))
        if fresh > 0 and window > 0:
            self._initialise(state, noise, fresh)
        state.window = window
        state.windows.append(window)
        state.reaches = [max(reach, count + window + 1) for count, reach in zip(state.counts, state.reaches)]

        anchors = state.committed[:, None] - 1
        positions = anchors + torch.arange(window + 1, device=anchors.device)  # [B, 1 + W]
        token_ids = state.canvas.gather(1, positions.clamp(min=0))
        extent = max(state.counts) + window
        visible = torch.arange(extent, device=anchors.device) <= positions[..., None]  # [B, 1 + W, S]
        return Query(token_ids, positions, visible)

    def step(
        self, probabilities: torch.Tensor, query: Query, state: DecodingState, noise: PositionNoise
    ) -> DecodingState:
        """Verify the drafts, commit a prefix per row, redraft the rest.

        Args:
            probabilities: `[B, 1 + W, V]` float32, the law of the token behind each slot of the query.
            query: what `plan` returned.
            state: the run, updated in place.
            noise: the noise that `plan` was given.

        Returns:
            `state`.
        """
        slots = Slots(probabilities, query.token_ids[:, 1:], query.positions + 1, state, noise)
        keep = slots.keep = self.accept(slots)
        accepted = leading(keep)  # [B]
        token = self.commit(slots, accepted)  # [B, 1]

        index = torch.arange(slots.positions.shape[1], device=token.device)  # [1 + W]
        front = accepted[:, None]
        if keep.shape[1]:
            tokens = torch.where(index == front, token, self.redraft(slots, keep))
            tokens[:, :-1] = torch.where(index[:-1] < front, slots.drafts, tokens[:, :-1])
        else:
            tokens = token
        state.canvas.scatter_(1, slots.positions, tokens)
        if state.laws is not None:
            state.laws.write(slots.positions, probabilities)

        return state.advance(slots.positions, accepted + 1)

    @property
    def _adapts(self) -> bool:
        return self.config.get("window") == AUTO

    def _next_window(self, state: DecodingState) -> int:
        if not self._adapts:
            return self.window
        policy, total = self.window_policy, state.layout.num_tokens
        if state.passes:
            growing = sum(count - gain < total for count, gain in zip(state.counts, state.advances))
            policy.observe(state.window, state.seconds, sum(state.advances) / growing)
        return policy.choose()

    @property
    def _initial(self) -> str:
        return self.config.get("initialise", "random")

    def _initialise(self, state: DecodingState, noise: PositionNoise, fresh: int) -> None:
        """Guess tokens for `fresh` positions behind `state.drafted`, in place."""
        positions = state.drafted[:, None] + torch.arange(fresh, device=state.drafted.device)  # [B, F]
        # A row that advanced less than the furthest one needs fewer; its surplus lands in the margin.
        positions = positions.clamp(max=state.canvas.shape[1] - 1)
        purpose, draw = (Purpose.SAMPLE, 0) if self.shares_noise else (Purpose.INITIALISE, state.passes)
        exponential = noise.exponential(positions, purpose, state.layout.vocabulary_size, draw)
        fresh_slots = FreshSlots(positions, state, exponential, frontier=state.drafted[:, None] - 1)
        tokens, laws = INITIALISERS[self._initial](fresh_slots)
        if state.forced is not None:
            forced = state.forced[positions]
            tokens = torch.where(forced >= 0, forced, tokens)
        if self.stores_laws:
            certain = one_hot(tokens, state.layout.vocabulary_size)
            if laws is None:
                laws = certain
            elif state.forced is not None:
                laws = torch.where((forced >= 0)[..., None], certain, laws)
            state.laws.write(positions, laws)
        state.canvas.scatter_(1, positions, tokens)


def speculative_commit(slots: Slots, accepted: torch.Tensor) -> torch.Tensor:
    """Residual sample at the first rejected slot; behind the last draft a sample of the target: `[B, 1]`."""
    target, positions = slots.at(slots.target, accepted), slots.at(slots.positions, accepted)
    return residual_sample(target, front_law(slots, accepted), positions, slots.noise, slots.state.passes)


def front_law(slots: Slots, accepted: torch.Tensor) -> torch.Tensor:
    """Law of the first rejected draft, zeros where all are accepted: `[B, 1, V]`."""
    window = slots.drafts.shape[1]
    if window == 0:
        return torch.zeros_like(slots.target[:, :1])
    law = slots.at(slots.draft_law, accepted.clamp(max=window - 1))
    return law.masked_fill((accepted == window)[:, None, None], 0.0)
