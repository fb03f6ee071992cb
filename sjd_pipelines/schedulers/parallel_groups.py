"""Models that make tokens in groups (PAR), decoded as they are made for, and with groups guessed ahead."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import Card, Setting
from ..decoding.layout import ImageTokenLayout
from ..decoding.noise import PositionNoise
from ..decoding.parallel_sequence import ParallelSequence
from ..decoding.query import Query
from ..decoding.sampling import race
from ..decoding.target import Companion
from .base import DecodingScheduler, RunState
from .declaration import LONGEST
from .rules.exact_match import exact_match
from .verification import leading


@dataclass(kw_only=True)
class GroupDecodingState(RunState):
    """The state of one batch whose tokens are made in groups. All tables are by slot, see `ParallelSequence`.

    Attributes:
        positions: `[L]` int64, of the token that is fed.
        learned: `[L]` int64, its id where it is a learned one, else -1.
        ends: `[L]` int64, how far it sees.
        slots: Q of this pass.
    """

    positions: torch.Tensor | None = None
    learned: torch.Tensor | None = None
    ends: torch.Tensor | None = None
    slots: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return *super().shape, self.slots

    @classmethod
    def empty(
        cls,
        layout: ImageTokenLayout,
        batch_size: int,
        margin: int,
        law_slots: int = 0,
        device: torch.device | str = "cpu",
        companions: Mapping[str, Companion] | None = None,
    ) -> "GroupDecodingState":
        """With the tables of the sequence."""
        state = cls(**vars(RunState.empty(layout, batch_size, margin, law_slots, device, companions)))
        sequence, length = ParallelSequence(layout), state.canvas.shape[1]
        tables = (sequence.positions(length), sequence.learned_ids(length), sequence.ends(length))
        state.positions, state.learned, state.ends = (table.to(device) for table in tables)
        return state


class ParallelGroupsScheduler(DecodingScheduler):
    """PAR: n tokens one by one, then n in every pass, each drawn with the noise of its position.

    With a window, tokens of the groups to come are guessed and fed as well, and a group whose law was computed from
    guesses that turn out right is committed in the same pass. The choice at a position depends on its noise and on the
    groups before it alone, so that every window draws the same picture: seeded Jacobi decoding, group by group.

    Args:
        window: tokens guessed ahead; less than a group of them is none.
    """

    label = "exact"
    paper = "Wang et al. 2024, arXiv 2412.15119"
    parallel = True
    state_type = GroupDecodingState
    card = Card(
        "Parallel groups (PAR)",
        "One token of every region of the picture per pass, for models that are trained for it (PAR).",
        "The decoder of PAR models, which take no other; other models do not take it.",
    )

    @register_to_config
    def __init__(
        self,
        window: Annotated[
            int,
            Setting(
                "Tokens guessed ahead per forward pass, in whole groups: less than a group is none. More of them save "
                "passes until guesses stop being right, and make every pass slower.",
                most=LONGEST,
            ),
        ] = 0,
    ):
        pass

    def margin(self, layout: ImageTokenLayout) -> int:
        return self._slots(layout)

    def prepare(self, state: GroupDecodingState, noise: PositionNoise) -> None:
        """Where nothing is guessed the first n passes have one slot."""
        group, most = state.layout.parallel, self._slots(state.layout)
        count = 1 if most == group and state.passes < group else most
        state.window = most - group
        state.windows.append(state.window)
        state.share_noise(noise, count, most)
        state.slots, state.reads = count, state.extent(max(state.counts) + count - 1)

    def ask(self, state: GroupDecodingState, noise: PositionNoise) -> Query:
        """Feed the group that was committed last, and guesses after it.

        Returns:
            A query of Q slots, a group and the window, of which the last ones stand after the image near the end.
        """
        predicts = state.committed[:, None] + torch.arange(state.slots, device=state.committed.device)  # [B, Q]
        slots = (predicts - 1).clamp(min=0)
        learned, positions = state.learned[slots], state.positions[slots]
        tokens = torch.where(learned < 0, state.canvas.gather(1, positions), learned)
        ends = torch.where(predicts > 0, state.ends[slots], 0)  # the end of the prompt sees no token
        visible = torch.arange(state.reads, device=predicts.device) < ends[..., None]  # [B, Q, S]
        return Query(tokens, positions, predicts, visible, slots=slots, prompt_end=state.passes == 0)

    def step(
        self, probabilities: torch.Tensor, query: Query, state: GroupDecodingState, noise: PositionNoise
    ) -> GroupDecodingState:
        """Commit all tokens whose law was computed from tokens that are right, and guess the others again."""
        predicts, group, count = query.predicts, state.layout.parallel, query.predicts.shape[1]
        choices = race(probabilities, state.shared_noise.read(predicts))  # [B, Q]
        committed = right = state.committed
        if state.window:
            right = right + leading(exact_match(state.canvas.gather(1, predicts), choices))
        # The law of a token is right if all tokens before its group are; the first n tokens are groups of one.
        following = torch.where(right < group, right + 1, (right // group + 1) * group)
        computed = committed + count  # of this, a group that was not fed as a whole is not right
        following = torch.minimum(following, torch.where(computed < group, computed, computed // group * group))
        state.canvas.scatter_(1, predicts, choices)
        if state.window:
            # A token that enters the window is guessed to be like the last one of its region.
            entering = (predicts + count).clamp(max=state.canvas.shape[1] - 1)
            alike = choices[:, -group:].repeat(1, -(-count // group))[:, :count]
            state.canvas.scatter_(1, entering, alike)
        return state.advance(predicts, following - committed)

    def _slots(self, layout: ImageTokenLayout) -> int:
        """Slots of a query: the group that is fed and the window."""
        return min(layout.parallel + self.window // layout.parallel * layout.parallel, layout.num_tokens)
