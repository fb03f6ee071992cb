"""Recipes: what a training run is told, its numbers held to their ranges before anything is read or written."""

from __future__ import annotations

import inspect
import os
import re
from typing import Annotated, get_type_hints

from ..ranges import Range

Count = Annotated[int, Range(1, whole=True)]
CountOrNone = Annotated[int, Range(0, whole=True)]  # where 0 means none, or no limit
Amount = Annotated[float, Range(0)]
PositiveAmount = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, 2**62, whole=True)]
_MOST = 4 * (os.cpu_count() or 1)  # many more bring torch down
Threads = Annotated[int, Range(1, _MOST, whole=True)]
ThreadsOrNone = Annotated[int, Range(0, _MOST, whole=True)]


class Recipe:
    """Of dataclasses: fields whose annotation has a `Range` take no other numbers.

    Raises:
        ValueError: a number is out of its range.
    """

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            for limits in getattr(hint, "__metadata__", ()):
                if isinstance(limits, Range):
                    limits.check(name, getattr(self, name))

    @classmethod
    def words(cls) -> dict[str, str]:
        """What fields are for, by name, as docstrings of the class and of those above it say under `Attributes:`."""
        found = {}
        for one in reversed(cls.__mro__):
            attributes = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")[2]
            for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
                found |= dict.fromkeys(names.split(", "), " ".join(text.split()).rstrip("."))
        return found
