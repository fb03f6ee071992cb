"""What a call of the flow pipeline is given: classes by name or index, seeds, outputs."""

import difflib
import secrets
from collections.abc import Iterable

import torch

from .inputs import OUTPUT_TYPES, check_generators, check_seeds

NAMES_SHOWN = 60  # class names that a message lists, at most


def class_index(label: str | int, classes: int, names: list[str]) -> int:
    """The index of a class.

    Args:
        label: its name, in any case, or its index, as a number or in digits.
        classes: how many there are.
        names: of the classes; empty where they have none.

    Raises:
        ValueError: there is no such class; names the nearest, or all.
    """
    text, lowered = str(label).strip(), [name.lower() for name in names]
    if isinstance(label, str) and text.lower() in lowered:
        return lowered.index(text.lower())
    if not isinstance(label, bool | float) and text.isdecimal() and int(text) < classes:
        return int(text)
    message = f"This model draws classes, by index in [0, {classes})"
    near = difflib.get_close_matches(text.lower(), lowered, 1)
    if near:
        message += f" or by name; did you mean {names[lowered.index(near[0])]}"
    elif names:
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        message += f" or by name: {', '.join(names[:NAMES_SHOWN])}{more}"
    raise ValueError(f"{message}; got {label!r}.")


def seeds_of(
    seeds: int | Iterable[int] | None, generator: torch.Generator | list[torch.Generator] | None, batch_size: int
) -> list[int]:
    """One 63-bit seed per picture: those given, or one from each generator, or fresh ones.

    The global random state is neither read nor moved.

    Raises:
        ValueError: they are no integers in [0, 2**63), of another number than the pictures, or beside a generator.
    """
    check_generators(generator, batch_size)
    given = check_seeds(seeds, generator, batch_size)
    if given is not None:
        return given
    if generator is None:
        return [secrets.randbits(63) for _ in range(batch_size)]
    generators = generator if isinstance(generator, list) else [generator] * batch_size
    return [
        torch.randint(2**63 - 1, (), dtype=torch.int64, generator=source, device=source.device).item()
        for source in generators
    ]


def check_output(output_type: str, tensor_inputs: list[str], known: list[str]) -> None:
    """Raise `ValueError` for an output or a tensor of the callback that there is not."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}; got {output_type!r}.")
    unknown = set(tensor_inputs) - set(known)
    if unknown:
        raise ValueError(f"callback_on_step_end_tensor_inputs: {sorted(unknown)} not in {', '.join(known)}.")
