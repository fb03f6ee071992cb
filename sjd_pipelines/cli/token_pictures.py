"""What `sjd generate` does for models that decode tokens: options, prompts, and what is recorded of a picture."""

import argparse
from typing import TYPE_CHECKING, Any

from .arguments import CommandError, sampling_options

if TYPE_CHECKING:
    from ..decoding import DecodingStatistics
    from ..pipelines import SJDAutoRegressivePipeline


def call_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the pipeline's call. Raises `CommandError` for one that is out of range."""
    return sampling_options(arguments) | {"negative_prompt": arguments.negative_prompt}


def check_prompts(pipe: "SJDAutoRegressivePipeline", arguments: argparse.Namespace) -> None:
    """Raise `CommandError` for a prompt that this model cannot draw."""
    negatives = [] if arguments.negative_prompt is None else [arguments.negative_prompt]
    scale = arguments.guidance_scale
    guided = (pipe.sampling_defaults()["guidance_scale"] if scale is None else scale) > 1
    layout = pipe.image_layout(None, None)
    given = {"prompt": (arguments.prompts, []), "--negative-prompt": ([], negatives)}
    for name, (prompts, negatives) in given.items():
        try:
            pipe.prepare_prompts([*prompts, *negatives])
            pipe.check_prompts(prompts, negatives if guided else None, layout)
        except ValueError as error:
            raise CommandError(f"{name}: {error}") from error


def records(batch: list[Any], statistics: "DecodingStatistics", scheduler: Any, again: bool) -> list[dict[str, Any]]:
    """One JSON object per picture; its seconds are its share of the batch's.

    `seed` is what --seed takes, null where the pictures were drawn `again`; `picture_seed` what --picture-seeds takes.
    """
    from .settings import name_of

    seconds = {stage: value / len(batch) for stage, value in statistics.seconds.items()}
    return [
        {
            "prompt": picture.prompt,
            "seed": None if again else picture.seed,
            "picture_seed": picture_seed,
            "scheduler": name_of(type(scheduler)),
            "label": statistics.label,
            "tokens": sum(committed),
            "forward_passes": passes,
            "prompt_passes": statistics.prompt_passes,
            "seconds": seconds,
            "committed_per_pass": committed,
            "windows": statistics.windows[:passes],
            "acceptance_map": acceptance_map.tolist(),
        }
        for picture, picture_seed, passes, committed, acceptance_map in zip(
            batch,
            statistics.seeds,
            statistics.forward_passes,
            statistics.committed_per_pass,
            statistics.acceptance_map,
        )
    ]


def summary(record: dict[str, Any]) -> str:
    seconds = sum(record["seconds"].values())
    return f"{record['tokens']} tokens in {record['forward_passes']} forward passes, {seconds:.2f} s"
