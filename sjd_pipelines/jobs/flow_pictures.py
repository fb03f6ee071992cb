"""Drawing rows with flows: classes as prompts, what they take, and what is recorded of a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .rows import FLOW_OPTIONS, Row

if TYPE_CHECKING:
    from ..flows import FlowStatistics
    from ..pipelines import TarFlowPipeline

OPTIONS = ("guidance_scale", *FLOW_OPTIONS)
# What says how tokens are drawn, of which a flow has none.
FOREIGN = ("temperature", "top_k", "top_p", "negative_prompt")


def check_kind(row: Row) -> None:
    """Raise `ValueError` for a setting that is for another kind of model."""
    for name in FOREIGN:
        if name in row.settings or getattr(row, name, None) is not None:
            raise ValueError(f"{name} does not apply to a flow, which draws no tokens.")


def check(pipe: "TarFlowPipeline", row: Row, scheduler: Any) -> None:
    """Raise `ValueError` for a row that this model can't draw."""
    try:
        pipe.prepare_labels([row.prompt], 1)
    except ValueError as error:
        raise ValueError(f"prompt: {error}") from error
    pipe.check_size(row.height, row.width)
    pipe.read_scheduler(scheduler).check(len(pipe.transformer.blocks), pipe.transformer.num_tokens)


def call(pipe: "TarFlowPipeline", rows: Sequence[Row], **options: Any) -> Any:
    """The pipeline's output for rows of one kind."""
    return pipe([row.prompt for row in rows], **options)


def records(rows: Sequence[Row], statistics: "FlowStatistics", scheduler: str) -> list[dict[str, Any]]:
    """One JSON object per picture; its seconds are its share of the batch's. Seeds are as for tokens."""
    seconds = {stage: value / len(rows) for stage, value in statistics.seconds.items()}
    return [
        {
            "prompt": row.prompt,
            "seed": row.seed,
            "picture_seed": picture_seed,
            "scheduler": scheduler,
            "label": statistics.label,
            "error": statistics.error,
            "forward_passes": sum(block.row_passes[index] for block in statistics.blocks),
            "seconds": seconds,
            "blocks": [
                {"block": block.block, "solver": block.solver, "passes": block.row_passes[index]}
                for block in statistics.blocks
            ],
        }
        for index, (row, picture_seed) in enumerate(zip(rows, statistics.seeds))
    ]


def summary(record: dict[str, Any]) -> str:
    seconds = sum(record["seconds"].values())
    return f"{len(record['blocks'])} blocks in {record['forward_passes']} forward passes, {seconds:.2f} s"
