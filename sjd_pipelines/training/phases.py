"""What the transformer is trained on, in which order: the one declaration of the recipe's course.

Everything is measured in pictures, so that a run of many sittings ends as an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Attributes:
        pictures: how long it lasts.
        mix: shares of single objects, counts and relations.
        rates: factor on the peak learning rates at its beginning and its end; linear in between.
        caption_weight: of the caption loss, which names what is drawn and is blind to where.
        part_weight: of the loss that asks the second noun for its own part of the picture.
        state_weight: of each of the two losses that ask every image token for the state of the scene.
    """

    pictures: int
    mix: tuple[float, float, float]
    rates: tuple[float, float] = (1.0, 1.0)
    caption_weight: float = 0.05
    part_weight: float = 0.3
    state_weight: float = 0.2

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the losses, in the order of `objective.LOSSES`."""
        return 1.0, self.caption_weight, self.part_weight, self.state_weight, self.state_weight


PHASES: tuple[Phase, ...] = (
    Phase(24_000, (0.60, 0.20, 0.20)),  # words and glyphs
    Phase(76_000, (0.15, 0.25, 0.60)),  # which word stands where
    Phase(150_000, (0.20, 0.35, 0.45), rates=(1.0, 0.6)),
    Phase(200_000, (0.25, 0.35, 0.40), rates=(0.6, 0.0), caption_weight=0.02),
)


def scaled(phases: Sequence[Phase], factor: float) -> tuple[Phase, ...]:
    """The same course over `factor` times the pictures."""
    return tuple(replace(phase, pictures=round(phase.pictures * factor)) for phase in phases)


def total_pictures(phases: Sequence[Phase]) -> int:
    return sum(phase.pictures for phase in phases)


def phase_at(phases: Sequence[Phase], images: int) -> tuple[Phase, float]:
    """The phase that a run is in after `images` pictures, and the factor on its learning rates there.

    Past the last phase, that phase and the factor it ends with.
    """
    for phase in phases:
        if images < phase.pictures:
            begin, end = phase.rates
            return phase, begin + (end - begin) * images / phase.pictures
        images -= phase.pictures
    return phases[-1], phases[-1].rates[1]
