"""Checks of a pipeline call, made before any work starts. Every message says what to do.

The command line checks its options here too, before it loads torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..ranges import Range, plain, shown

if TYPE_CHECKING:
    import torch

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
AT_ONCE = Range(1, 2**16, whole=True)  # pictures; what memory allows is less
SEED = Range(0, 2**63 - 1, whole=True)
SIDE = Range(1, 2**14, whole=True)  # pixels
COUNT = Range(1, 10**6, whole=True)
# Of flows. What leads away from a branch that attends so evenly, or so sharply, stays finite in float32.
FLOW = {
    "guidance_scale": Range(0, 1000),
    "attention_temperature": Range(1e-6, 1000),
    "denoise_strength": Range(0, 1000),
}
# Temperatures so low, and guidance so strong, that logits stay finite in float32.
SAMPLING = {
    "guidance_scale": Range(0, 1000),
    "temperature": Range(1e-6, 1000, zero=True),
    "top_k": Range(0, whole=True),
    "top_p": Range(0, 1, above=True),
}


def check_call(prompts: list[str], num_images_per_prompt: int, output_type: str) -> int:
    """The number of pictures per prompt. Raises `ValueError` for the first argument that is bad."""
    _check_prompts(prompts)
    check_output_type(output_type)
    return AT_ONCE.check("num_images_per_prompt", num_images_per_prompt)


def check_sampling(**options: Any) -> dict[str, int | float]:
    """Options of `SAMPLING` as Python's numbers; raises `ValueError` for the first that is out of range or none."""
    return {name: SAMPLING[name].check(name, value) for name, value in options.items()}


def check_flow(options: dict[str, Any]) -> dict[str, Any]:
    """Options with those of `FLOW` as Python's numbers; raises `ValueError` for the first that is out of range."""
    if not isinstance(plain(options.get("annealed_guidance", True)), bool):
        raise ValueError(f"annealed_guidance must be True or False, got {shown(options['annealed_guidance'])}.")
    return {name: FLOW[name].check(name, value) if name in FLOW else plain(value) for name, value in options.items()}


def check_output_type(output_type: str) -> None:
    """Raise `ValueError` for what no picture is given as."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}; got {shown(output_type)}.")


def check_size(height: int | None, width: int | None) -> tuple[int | None, int | None]:
    """A size in pixels as Python's numbers; raises `ValueError` for what is no size of any picture."""
    sides = {"height": height, "width": width}
    height, width = (side if side is None else SIDE.check(name, side) for name, side in sides.items())
    return height, width


def check_callback(callback: Any, names: Sequence[str] | None, known: list[str]) -> list[str]:
    """What a callback is to receive, by default all; raises `ValueError` for what is none, or a name not known."""
    if callback is not None and not callable(callback):
        raise ValueError(f"callback_on_step_end must be a function, got {shown(callback)}.")
    if names is None:
        return known
    if not isinstance(names, list | tuple) or not all(name in known for name in names):
        raise ValueError(
            f"callback_on_step_end_tensor_inputs must be a list of some of {', '.join(known)}; got {shown(names)}."
        )
    return list(names)


def check_generators(
    generator: torch.Generator | Sequence[torch.Generator] | None, batch_size: int
) -> torch.Generator | list[torch.Generator] | None:
    """None, one generator or a list of one per picture; raises `ValueError` for anything else."""
    import torch

    if generator is None or isinstance(generator, torch.Generator):
        return generator
    if not isinstance(generator, list | tuple) or not all(isinstance(one, torch.Generator) for one in generator):
        raise ValueError("generator must be a torch.Generator or a list of them.")
    if len(generator) != batch_size:
        raise ValueError(f"generator: got {len(generator)} for {batch_size} pictures; pass one, or one per picture.")
    return list(generator)


def check_seeds(
    seeds: int | Iterable[int] | None, generator: torch.Generator | Sequence[torch.Generator] | None, batch_size: int
) -> list[int] | None:
    """The seeds that are given, one per picture, as Python integers; None if none are.

    Raises:
        ValueError: they are no integers in [0, 2**63), of another number than the pictures, or beside a generator.
    """
    if seeds is None:
        return None
    if generator is not None:
        raise ValueError("generator and seeds exclude each other; pass one of them.")
    if not isinstance(seeds, Iterable) or getattr(seeds, "ndim", None) == 0:
        seeds = [seeds]
    given = list(seeds if hasattr(seeds, "__len__") else islice(seeds, batch_size + 1))
    for seed in given:
        if refusal := SEED.refusal(seed):
            raise ValueError(f"seeds {refusal.replace('an integer', 'integers')}.")
    if len(given) != batch_size:
        raise ValueError(f"seeds: got {len(given)} for {batch_size} pictures; pass one per picture.")
    return [SEED.check("seeds", seed) for seed in given]


def check_text_only(prompts: list[str], image_placeholder: str | None) -> None:
    """Raise `ValueError` if a prompt holds the family's placeholder of a picture."""
    if image_placeholder is None or not isinstance(prompts, list):
        return
    if any(isinstance(text, str) and image_placeholder in text for text in prompts):
        raise ValueError(
            f"{image_placeholder} in a prompt: pictures as input are out of scope, these pipelines draw from text."
        )


def check_text(name: str, text: str) -> None:
    """Raise `ValueError` for what no tokenizer reads: bytes that were not UTF-8, or half of a sign."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        place = f"{text[error.start]!a} at character {error.start + 1}"
        raise ValueError(f"{name} is not valid text: {place}.") from None


def check_prompt(number: int, prompt: str) -> None:
    """Raise `ValueError` for a prompt, counted from 1, that asks for nothing or is no text."""
    if not prompt.strip():
        raise ValueError(f"prompt {number} is empty; say what to draw.")
    check_text(f"prompt {number}", prompt)


def check_negatives(negative_prompt: str | Sequence[str] | None, prompts: int) -> list[str] | None:
    """One negative prompt for each of the prompts, or None; raises `ValueError` for what is neither that nor one."""
    if negative_prompt is None:
        return None
    negatives = [negative_prompt] * prompts if isinstance(negative_prompt, str) else negative_prompt
    if not isinstance(negatives, list | tuple) or not all(isinstance(text, str) for text in negatives):
        raise ValueError("negative_prompt must be a string or a list of strings.")
    for text in negatives:
        check_text("negative_prompt", text)
    if len(negatives) != prompts:
        raise ValueError(f"negative_prompt: got {len(negatives)} for {prompts} prompts; pass one, or one per prompt.")
    return list(negatives)


def _check_prompts(prompts: list[str]) -> None:
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(
            f"prompt must be a string or a list of strings, got {type(prompts).__name__} "
            "(pictures and conversations as input are out of scope: these pipelines draw from text)."
        )
    if not prompts:
        raise ValueError("prompt is an empty list; pass at least one prompt.")
    for number, prompt in enumerate(prompts, 1):
        check_prompt(number, prompt)
