"""Speculative Jacobi Decoding: drafts of the previous pass, verified as speculative samples."""

from typing import Annotated

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn.functional import pad

from ..declaration import Card, Setting
from ..decoding.look import look_is_free
from ..decoding.noise import Purpose
from ..decoding.sampling import race
from .declaration import WindowOrAuto
from .drafting import Initialise
from .raster_window import RasterWindowScheduler, Slots
from .rules.speculative import Speculative
from .verification import rejected_slots

Coupling = Annotated[
    str,
    Setting(
        "How new guesses are tied to old ones: maximal changes as few as possible, gumbel uses the same dice for the "
        "same place. Both are lossless; which is faster depends on the model.",
        choices=("maximal", "gumbel"),
    ),
]


class SJDScheduler(RasterWindowScheduler):
    """SJD (Teng et al. 2024, arXiv 2410.01699): speculative acceptance, residual resampling, fresh redrafts.

    Args:
        window: drafts verified per pass, or "auto".
        initialise: how a slot that enters the window is guessed. The paper's choices are `random`, `repeat-left`,
            `repeat-above`, `sample-left` and `sample-above`, which hold the guess to be certain; `uniform`,
            `law-left` and `law-above` store the law the guess was really sampled from.
    """

    label = "lossless"
    paper = "Teng et al. 2024, arXiv 2410.01699"
    card = Card(
        "Speculative Jacobi",
        "Speculative Jacobi Decoding: accepts a guess as often as the model itself would have drawn it, and draws the "
        "others again.",
        "Use it to reproduce the paper; Coupled Speculative Jacobi usually needs fewer passes at the same quality.",
    )

    acceptance = Speculative()

    @register_to_config
    def __init__(self, window: WindowOrAuto = 16, initialise: Initialise = "law-above"):
        pass

    def accept(self, slots: Slots) -> torch.Tensor:
        return slots.state.acceptance.accept(slots.drafted, slots.uniforms)

    def redraft(self, slots: Slots) -> torch.Tensor:
        # The token at the front has the noise that its redraft would have had: no draft was sampled with it.
        first = 0
        if look_is_free(slots.accepted):
            first = int(slots.accepted.min())
        # Draw 0 is the noise that stays with the position; passes count from 1 here.
        positions, passes = slots.positions[:, first:], slots.state.draw + 1
        exponential = slots.noise.exponential(positions, Purpose.SAMPLE, slots.target.shape[-1], passes)
        tokens = torch.cat([slots.drafts[:, :first], race(slots.target[:, first:], exponential)], 1)
        front = slots.accepted[:, None]
        rows = torch.arange(len(front), device=front.device)[:, None]
        token = race(self.front_remainder(slots), exponential[rows, front - first])  # [B, 1]
        return tokens.scatter_(1, front, token)

    def front_remainder(self, slots: Slots) -> torch.Tensor:
        """The law of the token at the front, up to its norm: `[B, 1, V]`."""
        draft = slots.at_front(pad(slots.drafts, (0, 1)))  # [B, 1]
        return slots.state.acceptance.residual(slots.at_front(slots.target), slots.front_law, draft)


class CoupledSJDScheduler(SJDScheduler):
    """SJD whose redrafts are coupled with the old drafts, so that they seldom change without need.

    Speculative coupled decoding (So et al. 2025, arXiv 2510.24211). `maximal`: keep a draft where its own acceptance
    test passes, else take the residual; the stored law becomes the new target either way. `gumbel`: redraft with the
    noise fixed at the position.

    Args:
        window: drafts verified per pass, or "auto".
        initialise: as in `SJDScheduler`.
        coupling: `maximal` or `gumbel`.
    """

    paper = "So et al. 2025, arXiv 2510.24211"
    card = Card(
        "Coupled Speculative Jacobi",
        "Speculative Jacobi whose new guesses stay close to the old ones, so that they settle sooner and fewer passes "
        "are needed.",
        "A good choice where another picture for the same seed does not matter.",
    )

    @register_to_config
    def __init__(
        self, window: WindowOrAuto = 16, initialise: Initialise = "law-above", coupling: Coupling = "maximal"
    ):
        pass

    @property
    def shares_noise(self) -> bool:
        return self.config.coupling == "gumbel"

    def redraft(self, slots: Slots) -> torch.Tensor:
        if self.config.coupling == "gumbel":
            return self._seeded(slots)
        rejected = rejected_slots(slots.keep)  # [B, R]
        redrawn = pad(rejected, (0, 1), value=slots.keep.shape[1])
        rows = torch.arange(len(redrawn), device=redrawn.device)[:, None]
        positions = slots.positions.gather(1, redrawn)
        drafts = pad(slots.drafts, (0, 1))
        draft_law = slots.state.laws.read(positions[:, :-1])  # [B, R, V]
        law = slots.state.acceptance.residual(slots.target[rows, redrawn], draft_law, drafts.gather(1, rejected))
        exponential = slots.noise.exponential(positions, Purpose.RESIDUAL, law.shape[-1], slots.state.draw)
        return torch.where(pad(slots.keep, (0, 1)), drafts, drafts.scatter(1, redrawn, race(law, exponential)))

    def _seeded(self, slots: Slots) -> torch.Tensor:
        # What replaces a draft must be independent of it, so the noise that stays with the position will not do.
        positions = slots.at_front(slots.positions)
        exponential = slots.noise.exponential(positions, Purpose.RESIDUAL, slots.target.shape[-1], slots.state.draw)
        token = race(self.front_remainder(slots), exponential)
        return slots.seeded_choice.scatter(1, slots.accepted[:, None], token)
