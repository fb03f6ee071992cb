"""Schedulers and solvers as plain data, `{"name": "sjd", "window": 8}`, and what they are made of again."""

from collections.abc import Mapping
from typing import Any

from ..declaration import settings_of
from ..exports import Registry
from ..flows.registry import FLOW_SOLVERS
from ..ranges import shown
from ..schedulers import SCHEDULERS

REGISTRIES: tuple[Registry, ...] = (SCHEDULERS, FLOW_SOLVERS)  # no name is in both


def name_of(cls: type) -> str:
    """The name of a scheduler or a solver class."""
    return (FLOW_SOLVERS if cls in FLOW_SOLVERS.values() else SCHEDULERS).name_of(cls)


def check_setting(cls: type, key: str) -> None:
    """Raise `ValueError` unless the scheduler or solver has a setting of that name."""
    known = settings_of(cls)
    if key not in known:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"{_words(cls)} {name_of(cls)} has no setting {shown(key)}; {has}.")


def make_scheduler(own: Any, described: Mapping[str, Any]) -> Any:
    """A scheduler of a description.

    Args:
        own: the model's, which is returned where nothing else is described, and whose class and settings hold where
            the description has no name.
        described: `name` and settings.

    Raises:
        ValueError: the name, a key or a value is not one that there is.
    """
    settings = {key: value for key, value in described.items() if key != "name"}
    name = described.get("name")
    if name is None and not settings:
        return own
    cls = type(own) if name is None else next(registry for registry in REGISTRIES if name in registry)[name]
    for key in settings:
        check_setting(cls, key)
    try:
        return cls(**settings) if name is not None else cls.from_config(own.config, **settings)
    except ValueError as error:
        raise ValueError(f"{_words(cls)} {name_of(cls)}: {error}") from error


def describe_scheduler(scheduler: Any) -> dict[str, Any]:
    """A scheduler or solver as `make_scheduler` takes it, with all its settings."""
    cls = type(scheduler)
    return {"name": name_of(cls)} | {key: scheduler.config[key] for key in settings_of(cls)}


def _words(cls: type) -> str:
    return "solver" if cls in FLOW_SOLVERS.values() else "scheduler"
