"""The loop that the raster-window family shares: a window of drafts right after the committed prefix.

A member of the family makes three choices: how a slot that enters the window is drafted (`INITIALISERS`), whether a
draft is accepted (`accept`), and what takes the places from the first rejection on (`redraft`).
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import torch

from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise, Purpose
from ..decoding.query import Query
from ..decoding.sampling import most_likely, race
from ..decoding.target import Companion, Target
from .adaptive_window import AUTO, COMPILED_WINDOWS, WINDOWS, AcceptedDrafts, PassSeconds, WindowChoice
from .base import DecodingScheduler, RunState
from .drafting import INITIALISERS, FreshSlots, one_hot
from .rules.speculative import Drafted
from .verification import leading

RUNS = 16  # kinds of runs of a model whose findings are kept


@dataclass
class WindowState(RunState):
    """Adds who chooses the windows.

    Attributes:
        choice: of this run where `window` is "auto"; else None.
    """

    choice: WindowChoice | None = None


@dataclass
class Slots:
    """The slots of one pass, as the choices see them. Slot W, after the last draft, has none.

    Attributes:
        target: `[B, W + 1, V]` float32, the model's law at each slot given the drafts before it.
        drafts: `[B, W]` int64.
        positions: `[B, W + 1]` int64, what the slots predict.
        state: the run before this pass is committed.
        noise: position-addressed random numbers.
        keep: `[B, W]` bool, which drafts passed, once that is known. The first that did not is the front.
    """

    target: torch.Tensor
    drafts: torch.Tensor
    positions: torch.Tensor
    state: WindowState
    noise: PositionNoise
    keep: torch.Tensor | None = None

    @cached_property
    def accepted(self) -> torch.Tensor:
        """`[B]` int64: leading drafts that passed, which also is the slot of the front; W where all did."""
        return leading(self.keep)

    @cached_property
    def drafted(self) -> Drafted:
        """The drafts as an acceptance rule sees them."""
        law_at = partial(self.state.laws.at, self.positions[:, :-1])
        span = self.drafts.shape[1]

        def useful() -> torch.Tensor:
            return (self.state.layout.num_tokens - self.positions[:, :1]).clamp(1, max(span, 1))

        return Drafted(self.target[:, :-1], self.drafts, law_at, span, useful=useful)

    @cached_property
    def uniforms(self) -> torch.Tensor:
        """`[B, W]`: numbers in [0, 1) that decide over each draft."""
        return self.noise.uniform(self.positions[:, :-1], Purpose.ACCEPT, self.state.draw)

    @cached_property
    def seeded_choice(self) -> torch.Tensor:
        """`[B, W + 1]` int64: argmax(p / noise), the noise fixed per position."""
        return race(self.target, self.state.shared_noise.read(self.positions))

    @cached_property
    def likeliest(self) -> torch.Tensor:
        """`[B, W + 1]` int64: argmax p."""
        return most_likely(self.target)

    @cached_property
    def front_law(self) -> torch.Tensor:
        """`[B, 1, V]`: the law of the draft at the front, zeros where there is none."""
        law = self.state.laws.read(self.at_front(self.positions))
        return law.masked_fill_((self.accepted == self.drafts.shape[1])[:, None, None], 0.0)

    def at_front(self, values: torch.Tensor) -> torch.Tensor:
        """Values of one slot per row: `[B, W + 1, ...]` -> `[B, 1, ...]`."""
        rows = torch.arange(len(values), device=values.device)
        return values[rows, self.accepted][:, None]


class DraftWindow(DecodingScheduler):
    """A window of drafts after the committed tokens: how it is filled and what a pass is to compute.

    Whether they are verified one after another or with others beside them is up to `step`.
    """

    # Drafts and initial guesses of one position share one noise vector (Gumbel coupling) or take fresh noise.
    shares_noise: ClassVar[bool] = False
    # Positions after the window that this noise is asked of.
    noise_ahead: int = 0
    # Verification compares drafts with the law they were sampled from.
    stores_laws: ClassVar[bool] = True
    # Slots after the window that a query uses.
    scratch: int = 0
    # What `window_choice` returns.
    choice_type: ClassVar[type[WindowChoice]] = WindowChoice
    state_type = WindowState

    @property
    def window(self) -> int:
        """Drafts verified per pass; with `window="auto"` the most there can be."""
        return WINDOWS[-1] if self.config.get("window") == AUTO else self.config.window

    def margin(self, layout: ImageTokenLayout) -> int:
        return min(self.window, layout.num_tokens) + 1 + self.scratch

    def law_slots(self, layout: ImageTokenLayout) -> int:
        window = min(self.window, layout.num_tokens)
        if not window or not (self.stores_laws or self._initial.startswith(("sample", "law"))):
            return 0
        # The window, as many slots again for the surplus of `_initialise`, and the neighbours it looks up.
        return 2 * window + 2 + layout.reach("above" if self._initial.endswith("above") else "left")

    def start(self, target: Target, companions: Mapping[str, Companion] | None = None) -> WindowState:
        state = super().start(target, companions)
        if self.config.get("window") == AUTO:
            state.choice = self.window_choice(target)
        return state

    def window_choice(self, target: Target) -> WindowChoice:
        """Chooses the windows of one run where `window` is "auto", by what runs like it have found out."""
        layout, sampling = target.layout, target.sampling
        like = (
            type(self),
            self.settings,
            layout.num_tokens,
            target.batch_size,
            target.device,
            sampling.guided,
            target.runner is None,
        )
        seconds = target.memory.recall("pass seconds", like, PassSeconds, RUNS)
        drafts = target.memory.recall("accepted drafts", (*like, sampling), AcceptedDrafts, RUNS)
        windows = WINDOWS if target.runner is None else COMPILED_WINDOWS
        return self.choice_type(layout.num_tokens, seconds, drafts, windows)

    def prepare(self, state: WindowState, noise: PositionNoise) -> None:
        """Choose the window and count the slots that enter it."""
        window = self.window
        if state.choice is not None:
            if state.passes:
                state.choice.observe(state.window, state.seconds, state.counts, state.advances)
            window = state.choice.choose()
        window = min(window, state.layout.num_tokens)
        # Slots up to the old window's end hold redrafts; the host knows how many enter without asking the device.
        fresh = max(0, *(count + window - reach for count, reach in zip(state.counts, state.reaches)))
        state.fresh = fresh if state.clock is None else window  # a row's surplus is guessed anew before it is fed
        if self.shares_noise:
            after = 1 + self.noise_ahead  # the slot after the last draft samples as well
            state.share_noise(noise, window + after, min(self.window, state.layout.num_tokens) + after)
        state.window = window
        state.windows.append(window)
        state.reaches = [max(reach, count + window + 1) for count, reach in zip(state.counts, state.reaches)]
        state.reads = state.extent(max(state.counts) + window + self.scratch)

    def ask(self, state: WindowState, noise: PositionNoise) -> Query:
        """Top up the window and say what the next forward pass computes.

        Returns:
            A query of Q = 1 + W slots: the last committed token, then the drafts. Near the end some of them stand
            after the image: Q is the same to the last pass.
        """
        window = state.window
        if state.fresh and window:
            self._initialise(state, noise, state.fresh)
        predicts = state.committed[:, None] + torch.arange(window + 1, device=state.committed.device)  # [B, 1 + W]
        positions = (predicts - 1).clamp(min=0)
        visible = torch.arange(state.reads, device=predicts.device) < predicts[..., None]  # [B, 1 + W, S]
        return Query(state.canvas.gather(1, positions), positions, predicts, visible, prompt_end=state.passes == 0)

    @property
    def _initial(self) -> str:
        return self.config.get("initialise", "random")

    def _initialise(self, state: WindowState, noise: PositionNoise, fresh: int) -> None:
        """Guess tokens for `fresh` positions after `state.drafted`, in place."""
        positions = state.drafted[:, None] + torch.arange(fresh, device=state.drafted.device)  # [B, F]
        # A row that advanced less than the furthest one needs fewer; its surplus lands in the margin.
        positions = positions.clamp(max=state.canvas.shape[1] - 1)
        if self.shares_noise:
            exponential = state.shared_noise.read(positions)
        else:
            exponential = noise.exponential(positions, Purpose.INITIALISE, state.layout.vocabulary_size, state.draw)
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


class RasterWindowScheduler(DraftWindow):
    """Base of the family. Subclasses set `label` and `paper` and define `accept` and `redraft`."""

    @abstractmethod
    def accept(self, slots: Slots) -> torch.Tensor:
        """Which drafts pass, each on its own: `[B, W]` bool."""

    @abstractmethod
    def redraft(self, slots: Slots) -> torch.Tensor:
        """The token committed at the front, and new guesses after it whose law is `slots.target`: `[B, W + 1]` int64.

        What it says of the slots in front of that is not used.
        """

    def step(self, probabilities: torch.Tensor, query: Query, state: WindowState, noise: PositionNoise) -> WindowState:
        """Verify the drafts, commit a prefix per row, redraft the rest.

        Args:
            probabilities: `[B, 1 + W, V]` float32, the law of what each slot of the query predicts.
            query: what `plan` returned.
            state: the run, updated in place.
            noise: the noise that `plan` was given.

        Returns:
            `state`.
        """
        slots = Slots(probabilities, query.token_ids[:, 1:], query.predicts, state, noise)
        slots.keep = self.accept(slots)
        tokens = self.redraft(slots)
        passed = torch.arange(slots.drafts.shape[1], device=tokens.device) < slots.accepted[:, None]  # [B, W]
        tokens[:, :-1] = torch.where(passed, slots.drafts, tokens[:, :-1])
        state.canvas.scatter_(1, slots.positions, tokens)
        if state.laws is not None:
            state.laws.write(slots.positions, probabilities)

        return state.advance(slots.positions, slots.accepted + 1)
