"""Checks of a pipeline call, made before any work starts. Every message says what to do.

The command line checks its options here too, before it loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from numbers import Integral, Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..decoding import Sampling

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def check_call(
    prompts: list[str],
    negative_prompt: str | list[str] | None,
    sampling: Sampling,
    num_images_per_prompt: int,
    output_type: str,
) -> None:
    """Raise `ValueError` for the first argument that is out of range or of the wrong type."""
    _check_prompts(prompts, negative_prompt)
    check_sampling(**asdict(sampling))
    check_integer("num_images_per_prompt", num_images_per_prompt, 1)
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}; got {output_type!r}.")


def check_sampling(guidance_scale: float = 1.0, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> None:
    """Raise `ValueError` for the first number that is out of range or of the wrong type."""
    check_number("guidance_scale", guidance_scale, 0)
    check_number("temperature", temperature, 0)
    check_integer("top_k", top_k, 0)
    check_number("top_p", top_p, 0)
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}.")


def check_tensor_inputs(names: list[str] | None, known: list[str]) -> list[str]:
    """What a callback is to receive, by default all; raises `ValueError` for a name that is not known."""
    if names is None:
        return known
    unknown = set(names) - set(known)
    if unknown:
        raise ValueError(f"callback_on_step_end_tensor_inputs: {sorted(unknown)} not in {', '.join(known)}.")
    return names


def check_generators(generator: torch.Generator | list[torch.Generator] | None, batch_size: int) -> None:
    """Raise `ValueError` unless `generator` is None, one generator, or one per picture."""
    import torch

    if generator is None or isinstance(generator, torch.Generator):
        return
    if not isinstance(generator, list) or not all(isinstance(one, torch.Generator) for one in generator):
        raise ValueError("generator must be a torch.Generator or a list of them.")
    if len(generator) != batch_size:
        raise ValueError(f"generator: got {len(generator)} for {batch_size} pictures; pass one, or one per picture.")


def check_seeds(
    seeds: int | Iterable[int] | None, generator: torch.Generator | list[torch.Generator] | None, batch_size: int
) -> list[int] | None:
    """The seeds that are given, one per picture, as Python integers; None if none are.

    Raises:
        ValueError: they are no integers in [0, 2**63), of another number than the pictures, or beside a generator.
    """
    if seeds is None:
        return None
    if generator is not None:
        raise ValueError("generator and seeds exclude each other; pass one of them.")
    given = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    for seed in given:
        if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise ValueError(f"seeds must be integers from 0 to 2**63 - 1, got {seed!r}.")
    if len(given) != batch_size:
        raise ValueError(f"seeds: got {len(given)} for {batch_size} pictures; pass one per picture.")
    return [int(seed) for seed in given]


def check_text_only(prompts: list[str], image_placeholder: str | None) -> None:
    """Raise `ValueError` if a prompt holds the family's placeholder of a picture."""
    if image_placeholder is None or not isinstance(prompts, list):
        return
    if any(isinstance(text, str) and image_placeholder in text for text in prompts):
        raise ValueError(
            f"{image_placeholder} in a prompt: pictures as input are out of scope, these pipelines draw from text."
        )


def _check_prompts(prompts: list[str], negative_prompt: str | list[str] | None) -> None:
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(
            f"prompt must be a string or a list of strings, got {type(prompts).__name__} "
            "(pictures and conversations as input are out of scope: these pipelines draw from text)."
        )
    if not prompts:
        raise ValueError("prompt is an empty list; pass at least one prompt.")
    if negative_prompt is None or isinstance(negative_prompt, str):
        return
    if not isinstance(negative_prompt, list) or not all(isinstance(prompt, str) for prompt in negative_prompt):
        raise ValueError("negative_prompt must be a string or a list of strings.")
    if len(negative_prompt) != len(prompts):
        raise ValueError(
            f"negative_prompt: got {len(negative_prompt)} for {len(prompts)} prompts; pass one, or one per prompt."
        )


def check_number(name: str, value: float, minimum: float) -> None:
    """Raise `ValueError` unless `value` is a finite number of at least `minimum`."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or value < minimum:
        raise ValueError(f"{name} must be a number of at least {minimum}, got {value!r}.")


def check_integer(name: str, value: int, minimum: int) -> None:
    """Raise `ValueError` unless `value` is an integer of at least `minimum`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}.")
