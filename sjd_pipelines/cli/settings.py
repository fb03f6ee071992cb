"""Schedulers and solvers by name: settings as they are typed on the command line, and objects made of them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..declaration import settings_of, shown
from ..exports import Registry
from ..flows.registry import FLOW_SOLVERS
from ..jobs import schedulers as jobs
from ..pipelines.families import AUTOREGRESSIVE, FLOW
from ..ranges import meant
from ..schedulers import SCHEDULERS
from ..schedulers.declaration import AUTO
from .arguments import CommandError

if TYPE_CHECKING:
    from ..flows import FlowSolver
    from ..schedulers import DecodingScheduler

# Kind of a model -> what it may be drawn with, and what that is called. No name is in both.
REGISTRIES: dict[str, tuple[Registry, str]] = {
    AUTOREGRESSIVE: (SCHEDULERS, "scheduler"),
    FLOW: (FLOW_SOLVERS, "solver"),
}


def kind_of(name: str, kind: str | None = AUTOREGRESSIVE) -> str:
    """What kind of model a name is for.

    Args:
        name: of a scheduler or a solver.
        kind: of the model; None is any.

    Raises:
        CommandError: there is no such name, or it is for another kind of model.
    """
    found = next((one for one, (registry, _) in REGISTRIES.items() if name in registry), None)
    if found is not None and kind in (None, found):
        return found
    if found is None:
        asked = [REGISTRIES[kind]] if kind else [*REGISTRIES.values()]
        near = next(filter(None, (meant(registry.named(name), registry) for registry, _ in asked)), "")
        known = "; of flows ".join(", ".join(registry) for registry, _ in asked)
        raise CommandError(f"unknown {asked[0][1]} {shown(name)}{near or f'; known are {known}'}.")
    registry, _ = REGISTRIES[kind]
    what = "solves flows" if found == FLOW else "decodes tokens"
    raise CommandError(f"{name} {what}, and this takes one of {', '.join(registry)}.")


def check_names(names: Iterable[str] | None, kind: str | None = AUTOREGRESSIVE) -> None:
    """Raise `CommandError` unless all names (None: all there are) are those of models of a kind; None is any kind."""
    for name in names or ():
        kind_of(name, kind)


def check_windows(
    names: Iterable[str] | None, windows: Iterable[int | str], kind: str | None = AUTOREGRESSIVE
) -> None:
    """Raise `CommandError` unless all schedulers called `names` take all `windows`; "auto" is for those that can."""
    check_names(names, kind)
    numbers = [window for window in windows if window != AUTO]
    for name in names or SCHEDULERS:
        setting = settings_of(scheduler_class(name, kind)).get("window")
        for window in numbers if setting else ():
            if refusal := setting.refusal(window):
                raise CommandError(f"scheduler {name}: window {refusal}.")


def scheduler_class(name: str, kind: str | None = AUTOREGRESSIVE) -> "type[DecodingScheduler] | type[FlowSolver]":
    """Raises `CommandError` as `kind_of`."""
    return REGISTRIES[kind_of(name, kind)][0][name]


def defaults(cls: type) -> dict[str, Any]:
    """The settings of a scheduler or solver class and their defaults."""
    return {name: setting.default for name, setting in settings_of(cls).items()}


def make_scheduler(
    name: str,
    window: int | str | None = None,
    assignments: Iterable[str] = (),
    kind: str | None = AUTOREGRESSIVE,
) -> "DecodingScheduler | FlowSolver":
    """A scheduler, or the solver of a flow, from the command line.

    Args:
        name: as registered.
        window: drafts verified per pass or "auto"; None leaves the default of the class.
        assignments: further settings as `KEY=VALUE`.
        kind: of the model; None is any.

    Raises:
        CommandError: the name, a key or a value is not one that there is.
    """
    return jobs.make_scheduler(None, read_scheduler(name, window, assignments, kind))


def read_scheduler(
    name: str, window: int | str | None = None, assignments: Iterable[str] = (), kind: str | None = AUTOREGRESSIVE
) -> dict[str, Any]:
    """The same as plain data, as rows of a job have it; a scheduler has been made of it."""
    cls = scheduler_class(name, kind)
    given: dict[str, Any] = {} if window is None else {"window": window}
    texts: dict[str, str] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise CommandError(f"--set {assignment}: must have the form KEY=VALUE.")
        if key in given or key in texts:
            raise CommandError(f"--set {assignment}: {key} is given twice.")
        texts[key] = text
    try:
        for key in texts:
            jobs.check_setting(cls, key)
        described = {"name": name} | given | {key: settings_of(cls)[key].read(text) for key, text in texts.items()}
        jobs.make_scheduler(None, described)
    except ValueError as error:
        raise CommandError(error) from error
    return described
