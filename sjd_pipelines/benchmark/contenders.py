"""Who takes part in a comparison: schedulers with their settings, and the approximate ones over their bounds."""

from dataclasses import dataclass, field
from math import ceil
from typing import Any

from ..pipelines import SJDAutoRegressivePipeline
from ..schedulers import SCHEDULERS, DecodingScheduler


@dataclass(frozen=True)
class Contender:
    """One row of a table.

    Attributes:
        name: as registered in `SCHEDULERS`; `library` for the model library's own `generate`.
        scheduler: None is the library.
    """

    name: str
    scheduler: DecodingScheduler | None

    @property
    def label(self) -> str:
        return self.scheduler.label if self.scheduler else "lossless"

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
        lacking = pipe.lacking(self.scheduler) if self.scheduler else None
        return f"needs a {lacking}; this pipeline has none" if lacking else None


def at_defaults(names: list[str] | None = None) -> tuple[Contender, ...]:
    """The schedulers called `names` (default all) with their default settings."""
    return tuple(Contender(name, SCHEDULERS[name]()) for name in dict.fromkeys(names or SCHEDULERS))


@dataclass(frozen=True)
class RelaxedFamily:
    """One approximate decoder and the bound that trades its error against passes.

    Attributes:
        title: what to call it.
        name: as registered in `SCHEDULERS`.
        bound: the setting that is varied.
        values: of the bound, the strictest first; of a row-parallel decoder as shares of a picture row.
        by_row: a row-parallel decoder. It has an enumerable model of its own, since a row has to have some columns.
        settings: the others that differ from their defaults.
    """

    title: str
    name: str
    bound: str
    values: tuple[float, ...]
    by_row: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def at(self, value: float, columns: int, window: int | None = None) -> Contender:
        """The decoder at one value of its bound, for pictures of so many token columns."""
        cls = SCHEDULERS[self.name]
        settings = self.settings | {self.bound: ceil(value * columns) if self.by_row else value}
        if window is not None and "window" in cls().config:
            settings |= {"window": window}
        return Contender(self.name, cls(**settings))


ROW_SHARES = (1.0, 0.5, 0.25, 0.125)
RELAXED_FAMILIES = (
    RelaxedFamily("LANTERN, additive", "lantern", "relaxation", (0.0, 0.1, 0.2, 0.4), settings={"rule": "additive"}),
    RelaxedFamily(
        "LANTERN++, multiplicative", "lantern", "relaxation", (1.0, 1.5, 2.0, 4.0), settings={"rule": "multiplicative"}
    ),
    RelaxedFamily(
        "LANTERN++, draft model",
        "lantern-eagle",
        "relaxation",
        (1.0, 1.5, 2.0, 4.0),
        settings={"rule": "multiplicative"},
    ),
    RelaxedFamily("Cool-SD, annealed", "lantern", "relaxation", (1.0, 1.2, 1.5, 2.0), settings={"rule": "annealed"}),
    RelaxedFamily("GSD", "gsd", "gap", (0.0, 0.15, 0.4, 1.0)),
    RelaxedFamily("SJD++", "sjd++", "reuse_threshold", (2.0, 1.0, 0.5, 0.25)),
    RelaxedFamily("ZipAR", "zipar", "delay", ROW_SHARES, by_row=True),
    RelaxedFamily("PJD", "pjd", "delay", ROW_SHARES, by_row=True),
)
