"""What `sjd generate` does for flows: options, classes as prompts, and what is recorded of a picture."""

import argparse
from typing import TYPE_CHECKING, Any

from .arguments import CommandError, sampling_options

if TYPE_CHECKING:
    from ..flows import FlowSolver, FlowStatistics
    from ..pipelines import TarFlowPipeline

# Options of a command that say how tokens are drawn, of which a flow has none.
FOREIGN = ("temperature", "top_k", "top_p", "negative_prompt", "gif")


def call_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the pipeline's call. Raises `CommandError` for one that flows do not take."""
    for name in FOREIGN:
        if getattr(arguments, name) is not None:
            raise CommandError(f"--{name.replace('_', '-')} does not apply to a flow, which draws no tokens.")
    return sampling_options(arguments)


def check_prompts(pipe: "TarFlowPipeline", arguments: argparse.Namespace) -> None:
    """Raise `CommandError` for a class that this model does not know."""
    try:
        pipe.prepare_labels(arguments.prompts, 1)
    except ValueError as error:
        raise CommandError(f"prompt: {error}") from error


def records(
    batch: list[Any], statistics: "FlowStatistics", scheduler: "FlowSolver", again: bool
) -> list[dict[str, Any]]:
    """One JSON object per picture; its seconds are its share of the batch's. Seeds are as for tokens."""
    seconds = {stage: value / len(batch) for stage, value in statistics.seconds.items()}
    return [
        {
            "prompt": picture.prompt,
            "seed": None if again else picture.seed,
            "picture_seed": picture_seed,
            "scheduler": scheduler.name,
            "label": statistics.label,
            "error": statistics.error,
            "forward_passes": sum(block.row_passes[row] for block in statistics.blocks),
            "seconds": seconds,
            "blocks": [
                {"block": block.block, "solver": block.solver, "passes": block.row_passes[row]}
                for block in statistics.blocks
            ],
        }
        for row, (picture, picture_seed) in enumerate(zip(batch, statistics.seeds))
    ]


def summary(record: dict[str, Any]) -> str:
    seconds = sum(record["seconds"].values())
    return f"{len(record['blocks'])} blocks in {record['forward_passes']} forward passes, {seconds:.2f} s"
