"""The tensors that objects of a run hold, found wherever they are, and put back in their places."""

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from itertools import count
from types import ModuleType
from typing import Any

import torch

Visit = Callable[[str, torch.Tensor], torch.Tensor]


def held(root: Any) -> list[tuple[str, torch.Tensor]]:
    """All tensors that `root` holds: where, and which one. See `visit_held`."""
    found = []

    def note(path: str, tensor: torch.Tensor) -> torch.Tensor:
        found.append((path, tensor))
        return tensor

    visit_held(root, note)
    return found


def put_back(root: Any, tensors: list[torch.Tensor]) -> None:
    """Put other tensors in the places that `held` lists, in its order."""
    number = count()
    visit_held(root, lambda path, tensor: tensors[next(number)])


def first_places(live: list[tuple[str, torch.Tensor]]) -> tuple[int, ...]:
    """For each place the first one that holds the same tensor."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(id(tensor), index) for index, (_, tensor) in enumerate(live))


def visit_held(root: Any, visit: Visit) -> None:
    """Call `visit(path, tensor)` for every tensor that `root` holds, and put what it returns in its place.

    Containers and plain objects are gone through, each once and in a fixed order. What does not belong to a run alone
    is left out: networks and whatever else can be called, frozen dataclasses, and what has `outlives_runs`.
    """
    _visited(root, "", visit, set())


def _visited(value: Any, path: str, visit: Visit, seen: set[int]) -> Any:
    if isinstance(value, torch.Tensor):
        return visit(path, value)
    if isinstance(value, tuple):
        parts = [_visited(part, f"{path}.{index}", visit, seen) for index, part in enumerate(value)]
        return value if all(new is old for new, old in zip(parts, value)) else tuple(parts)
    places = _places(value)
    if places is None or id(value) in seen:
        return value
    seen.add(id(value))
    for name, part in _parts(places):
        if isinstance(part, torch.Tensor | tuple | list | dict) or hasattr(part, "__dict__"):
            new = _visited(part, f"{path}.{name}", visit, seen)
            if new is not part:
                places[name] = new
    return value


def _places(value: Any) -> dict | list | None:
    """Where an object of a run keeps its parts; None for any other."""
    if isinstance(value, dict | list):
        return value
    shared = callable(value) or isinstance(value, ModuleType) or getattr(value, "outlives_runs", False)
    if shared or not hasattr(value, "__dict__") or (is_dataclass(value) and value.__dataclass_params__.frozen):
        return None
    return vars(value)


def _parts(places: dict | list) -> Iterator[tuple[Any, Any]]:
    return iter(list(places.items() if isinstance(places, dict) else enumerate(places)))
