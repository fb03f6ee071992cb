"""Who takes part in a comparison: schedulers with their settings, and the approximate ones over their bounds."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Any

from ..pipelines import SJDAutoRegressivePipeline
from ..schedulers import SCHEDULERS, DecodingScheduler
from ..schedulers.declaration import Bound


@dataclass(frozen=True)
class Contender:
    """One row of a table.

    Attributes:
        name: as registered in `SCHEDULERS`; `library` for the model library's own `generate`.
        scheduler: None is the library.
    """

    name: str
    scheduler: DecodingScheduler | None

    def label_at(self, temperature: float) -> str:
        """What it claims of calls at this temperature."""
        return self.scheduler.label_at(temperature) if self.scheduler else "lossless"

    @property
    def settings(self) -> dict[str, Any]:
        """Config of the scheduler."""
        config = self.scheduler.config if self.scheduler else {}
        return {key: value for key, value in config.items() if key[0] != "_"}

    @property
    def key(self) -> str:
        """Name and settings: what tells contenders apart."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.settings.items())])

    def missing(self, pipe: SJDAutoRegressivePipeline) -> str | None:
        """Why this pipeline cannot run it; None if it can."""
        if self.scheduler is None:
            return None
        return self.scheduler.unsuited(pipe.image_layout(None, None), pipe.companions())


def labels_at(contenders: Iterable[Contender], temperature: float) -> dict[str, str]:
    """What each claims of calls at this temperature, by its key."""
    return {contender.key: contender.label_at(temperature) for contender in contenders}


def at_defaults(names: list[str] | None = None) -> tuple[Contender, ...]:
    """The schedulers called `names` (default all) with their default settings."""
    return tuple(Contender(name, SCHEDULERS[name]()) for name in dict.fromkeys(names or SCHEDULERS))


@dataclass(frozen=True, kw_only=True)
class RelaxedFamily(Bound):
    """One approximate decoder and the bound that trades its error against passes.

    One `by_row` has an enumerable model of its own, since a row has to have some columns.

    Attributes:
        name: as registered in `SCHEDULERS`.
    """

    name: str

    def at(self, value: float, columns: int, window: int | None = None) -> Contender:
        """The decoder at one value of its bound, for pictures of so many token columns."""
        cls = SCHEDULERS[self.name]
        settings = {**self.settings, self.bound: ceil(value * columns) if self.by_row else value}
        if window is not None and "window" in cls().config:
            settings |= {"window": window}
        return Contender(self.name, cls(**settings))


RELAXED_FAMILIES = tuple(
    RelaxedFamily(**vars(bound), name=name) for name, cls in SCHEDULERS.items() for bound in cls.bounds
)
