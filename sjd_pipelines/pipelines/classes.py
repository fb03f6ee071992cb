"""Classes of a prompt, by name or index."""

import difflib

NAMES_SHOWN = 60  # class names that a message lists, at most


def class_index(label: str | int, classes: int, names: list[str]) -> int:
    """The index of a class.

    Args:
        label: its name, in any case, or its index, as a number or in digits.
        classes: how many there are.
        names: of the classes; empty where they have none.

    Raises:
        ValueError: there is no such class; names the nearest, and all there are.
    """
    text, lowered = str(label).strip(), [name.lower() for name in names]
    if isinstance(label, str) and text.lower() in lowered:
        return lowered.index(text.lower())
    if not isinstance(label, bool | float) and text.isdecimal() and int(text) < classes:
        return int(text)
    message = f"This model draws classes, by index in [0, {classes})"
    if names:
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        message += f" or by name ({', '.join(names[:NAMES_SHOWN])}{more})"
    near = difflib.get_close_matches(text.lower(), lowered, 1)
    hint = f" Did you mean {names[lowered.index(near[0])]}?" if near else ""
    raise ValueError(f"{message}; got {label!r}.{hint}")
