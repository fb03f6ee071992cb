"""Schedulers by name: settings as they are typed on the command line, and scheduler objects made of them."""

from collections.abc import Callable, Iterable
from types import NoneType
from typing import TYPE_CHECKING, Any

from ..schedulers import SCHEDULERS
from ..schedulers.declaration import AUTO, Setting, settings_of, shown
from ..schedulers.registry import registered_name
from .arguments import CommandError

if TYPE_CHECKING:
    from ..schedulers import DecodingScheduler

# In the order they are tried: what a KEY=VALUE value may be read as, by the types of the setting.
_READERS: dict[type, Callable[[str], Any]] = {
    NoneType: {"none": None, "None": None}.__getitem__,
    bool: {"true": True, "True": True, "false": False, "False": False}.__getitem__,
    int: int,
    float: float,
}


def scheduler_class(name: str) -> "type[DecodingScheduler]":
    """Raises `CommandError` for a name that is not registered."""
    _check_name(name)
    return SCHEDULERS[name]


def check_names(names: Iterable[str] | None) -> None:
    """Raise `CommandError` unless all names (None: all there are) are registered."""
    for name in names or ():
        _check_name(name)


def check_windows(names: Iterable[str] | None, windows: Iterable[int | str]) -> None:
    """Raise `CommandError` unless all schedulers called `names` take all `windows`; "auto" is for those that can."""
    check_names(names)
    numbers = [window for window in windows if window != AUTO]
    for name in names or SCHEDULERS:
        setting = settings_of(SCHEDULERS[name]).get("window")
        for window in numbers if setting else ():
            if refusal := setting.refusal(window):
                raise CommandError(f"scheduler {name}: window {refusal}.")


def defaults(cls: "type[DecodingScheduler]") -> dict[str, Any]:
    """The settings of a scheduler class and their defaults."""
    return {name: setting.default for name, setting in settings_of(cls).items()}


def make_scheduler(name: str, window: int | str | None = None, assignments: Iterable[str] = ()) -> "DecodingScheduler":
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
    given |= {key: _read(text, settings_of(cls)[key]) for key, text in texts.items()}
    try:
        return cls(**given)
    except ValueError as error:
        raise CommandError(f"scheduler {name}: {error}") from error


def check_setting(cls: "type[DecodingScheduler]", key: str) -> None:
    """Raise `CommandError` unless the scheduler has a setting of that name."""
    known = settings_of(cls)
    if key not in known:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise CommandError(f"scheduler {registered_name(cls)} has no setting {shown(key)}; {has}.")


def _check_name(name: str) -> None:
    if name not in SCHEDULERS:
        raise CommandError(f"unknown scheduler {shown(name)}; known are {', '.join(SCHEDULERS)}.")


def _read(text: str, setting: Setting) -> Any:
    """What a text stands for; one that stands for nothing the setting takes is left for the scheduler to refuse."""
    for kind, reader in _READERS.items():
        if kind in setting.types:
            try:
                return reader(text)
            except (KeyError, ValueError):
                continue
    return text
