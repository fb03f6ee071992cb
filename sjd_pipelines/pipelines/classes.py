"""Classes of a prompt, by name or index."""

import difflib
from collections.abc import Mapping
from typing import Any

from ..ranges import plain, shown

MOST_DIGITS = 10  # of an index
NAMES_SHOWN = 60  # class names that a message lists, at most


def keyed_by_text(id2label: dict[int, str] | None) -> dict[str, str] | None:
    """Names of classes in the order of their indices, with keys as they come back from JSON.

    Raises:
        ValueError: they are no names by index.
    """
    if id2label is None:
        return None
    if not isinstance(id2label, Mapping) or not all(map(_is_named, id2label, id2label.values())):
        raise ValueError(f"id2label must be a dict of names by index, such as {{0: 'cat'}}; got {shown(id2label)}.")
    return {str(index): name for index, name in sorted(id2label.items(), key=lambda entry: int(entry[0]))}


def _is_named(index: Any, name: Any) -> bool:
    digits = "" if isinstance(index, bool) else str(index)
    return isinstance(name, str) and digits.isdecimal() and len(digits) <= MOST_DIGITS


def class_index(label: Any, classes: int, names: list[str]) -> int:
    """The index of a class.

    Args:
        label: its name, in any case, or its index, as an integer of any library or in digits.
        classes: how many there are.
        names: of the classes; empty where they have none.

    Raises:
        ValueError: there is no such class; names the nearest, and all there are.
    """
    text = " ".join(label.lower().split()) if isinstance(label, str) else ""
    lowered = [name.lower() for name in names]
    if text and text in lowered:
        return lowered.index(text)
    index = int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else plain(label)
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < classes:
        return index
    message = f"This model draws classes, by index in [0, {classes})"
    if names:
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        message += f" or by name ({', '.join(names[:NAMES_SHOWN])}{more})"
    near = difflib.get_close_matches(text, lowered, 1)
    hint = f" Did you mean {names[lowered.index(near[0])]}?" if near else ""
    raise ValueError(f"{message}; got {shown(label)}.{hint}")
