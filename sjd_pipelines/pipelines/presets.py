"""The few ways of decoding that an artist needs, named by what they give."""

from typing import Any

from ..declaration import settings_of
from ..schedulers import SCHEDULERS
from ..schedulers.declaration import AUTO

Choice = tuple[str, dict[str, Any]]  # name and settings of a scheduler

# What a preset gives -> schedulers and settings, the best first: the first that the model can be decoded by is taken.
PRESETS: dict[str, tuple[Choice, ...]] = {
    "same picture, fast": (("revised-jacobi", {}), ("seeded-jacobi", {}), ("par", {})),
    "same picture, fewest passes": (
        ("corrected-jacobi", {}),
        ("revised-jacobi", {"window": 32, "reach": 32, "revisions": 3}),
        ("tree-jacobi", {}),
        ("par", {}),
    ),
    "sequential, one token at a time": (("autoregressive", {}), ("par", {})),
    "another picture, just as good": (("coupled-sjd", {}), ("par", {})),
    "slightly different, faster with large models": (("lantern", {"relaxation": 4.0}), ("par", {})),
}
OWN_WINDOW = "the preset's own"
WINDOWS = (OWN_WINDOW, AUTO, "4", "8", "16", "32", "64", "128")


def candidates(preset: str, window: str = OWN_WINDOW) -> list[Choice]:
    """Schedulers of a preset, with a window of one's own; those that have none, or no such one, keep theirs.

    Raises:
        ValueError: there is no such preset or window.
    """
    for name, value, known in (("preset", preset, tuple(PRESETS)), ("window", window, WINDOWS)):
        if value not in known:
            raise ValueError(f"{name} must be one of: {'; '.join(known)}. It is '{value}'.")
    wanted = {} if window == OWN_WINDOW else {"window": AUTO if window == AUTO else int(window)}
    return [(scheduler, settings | _fitting(scheduler, wanted)) for scheduler, settings in PRESETS[preset]]


def for_any_model(preset: str, window: str = OWN_WINDOW, parallel: bool = False) -> Choice:
    """The candidate that needs nothing beside a model: one that makes tokens in groups, or one after the other.

    It draws what the preset draws: where another is better for a model, both are exact.
    """
    suited = (one for one in candidates(preset, window) if SCHEDULERS[one[0]].parallel == parallel)
    return next(one for one in suited if not SCHEDULERS[one[0]].companions)


def _fitting(scheduler: str, wanted: dict[str, Any]) -> dict[str, Any]:
    declared = settings_of(SCHEDULERS[scheduler])
    return {key: value for key, value in wanted.items() if key in declared and declared[key].takes(value)}
