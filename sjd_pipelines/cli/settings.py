"""Schedulers by name: their settings, read off the signatures of their classes, and scheduler objects made of them."""

import inspect
from collections.abc import Callable, Iterable
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..schedulers import SCHEDULERS, DecodingScheduler
from .arguments import CommandError

_WORDS = {"true": True, "false": False}
# In the order they are tried: what a KEY=VALUE value may be read as, by the annotation of the setting.
_READERS: dict[type, Callable[[str], Any]] = {
    NoneType: {"none": None}.__getitem__,
    bool: _WORDS.__getitem__,
    int: int,
    float: float,
    str: str,
}


def scheduler_class(name: str) -> type[DecodingScheduler]:
    """Raises `CommandError` for a name that is not registered."""
    if name not in SCHEDULERS:
        raise CommandError(f"unknown scheduler {name!r}; known are {', '.join(SCHEDULERS)}.")
    return SCHEDULERS[name]


def check_names(names: Iterable[str] | None) -> None:
    """Raise `CommandError` unless all names (None: all there are) are registered."""
    for name in names or ():
        scheduler_class(name)


def registered_name(cls: type[DecodingScheduler]) -> str:
    """The name `cls` is registered under, or its class name."""
    return next((name for name, registered in SCHEDULERS.items() if registered is cls), cls.__name__)


def settings(cls: type[DecodingScheduler]) -> dict[str, Any]:
    """The settings of a scheduler class and their defaults."""
    return {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}


def make_scheduler(name: str, window: int | str | None = None, assignments: Iterable[str] = ()) -> DecodingScheduler:
    """A scheduler from the command line.

    Args:
        name: as registered in `SCHEDULERS`.
        window: drafts verified per pass or "auto"; None leaves the default of the class.
        assignments: further settings as `KEY=VALUE`.

    Raises:
        CommandError: the name, a key or a value is not one the scheduler takes.
    """
    cls = scheduler_class(name)
    given: dict[str, Any] = {} if window is None else {"window": window}
    texts: dict[str, str] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise CommandError(f"--set {assignment}: must have the form KEY=VALUE.")
        if key in given or key in texts:
            raise CommandError(f"--set {assignment}: {key} is given twice.")
        texts[key] = text
    for key in given | texts:
        check_setting(cls, key)
    hints = get_type_hints(cls.__init__)
    given |= {key: _read(key, text, hints[key]) for key, text in texts.items()}
    try:
        return cls(**given)
    except ValueError as error:
        raise CommandError(f"scheduler {name}: {error}") from error


def check_setting(cls: type[DecodingScheduler], key: str) -> None:
    """Raise `CommandError` unless the scheduler has a setting of that name."""
    known = settings(cls)
    if key not in known:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise CommandError(f"scheduler {registered_name(cls)} has no setting {key!r}; {has}.")


def _read(key: str, text: str, hint: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind, reader in _READERS.items():
        if kind in kinds:
            try:
                return reader(text)
            except (KeyError, ValueError):
                continue
    expected = " or ".join(kind.__name__ for kind in _READERS if kind in kinds)
    raise CommandError(f"--set {key}={text}: {key} must be of type {expected or hint}.")
