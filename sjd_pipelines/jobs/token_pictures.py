"""Drawing rows with models that decode tokens: what they take, and what is recorded of a picture."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..pipelines.inputs import SAMPLING
from .rows import FLOW_OPTIONS, Row

if TYPE_CHECKING:
    from ..decoding import DecodingStatistics
    from ..pipelines import SJDAutoRegressivePipeline

OPTIONS = tuple(SAMPLING)


def check_kind(row: Row) -> None:
    """Raise `ValueError` for a setting that is for another kind of model."""
    for name in FLOW_OPTIONS:
        if name in row.settings:
            raise ValueError(f"{name} does not apply to a model that decodes tokens.")


def check(pipe: "SJDAutoRegressivePipeline", row: Row, scheduler: Any) -> None:
    """Raise `ValueError` for a row that this model can't draw."""
    layout = pipe.image_layout(row.height, row.width)
    sampling = pipe.prepare_sampling(**{name: row.settings[name] for name in OPTIONS if name in row.settings})
    negatives = [] if row.negative_prompt is None else [row.negative_prompt]
    for name, prompts, against in (("prompt", [row.prompt], []), ("negative_prompt", [], negatives)):
        try:
            pipe.prepare_prompts([*prompts, *against])
            pipe.check_prompts(prompts, against if sampling.guided else None, layout)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    pipe.check_scheduler(scheduler, layout)


def call(pipe: "SJDAutoRegressivePipeline", rows: Sequence[Row], **options: Any) -> Any:
    """The pipeline's output for rows of one kind; all have a negative prompt, or none."""
    negatives = None if rows[0].negative_prompt is None else [row.negative_prompt for row in rows]
    return pipe([row.prompt for row in rows], negative_prompt=negatives, **options)


def records(rows: Sequence[Row], statistics: "DecodingStatistics", scheduler: str) -> list[dict[str, Any]]:
    """One JSON object per picture; its seconds are its share of the batch's.

    `seed` is what --seed takes, null where a picture seed was given; `picture_seed` what --picture-seeds takes.
    """
    seconds = {stage: value / len(rows) for stage, value in statistics.seconds.items()}
    execution = {"execution": asdict(statistics.execution)} if statistics.execution else {}  # of compiled passes
    return [
        {
            "prompt": row.prompt,
            "seed": row.seed,
            "picture_seed": picture_seed,
            "scheduler": scheduler,
            "label": statistics.label,
            "tokens": sum(committed),
            "forward_passes": passes,
            "prompt_passes": statistics.prompt_passes,
            "seconds": seconds,
            "committed_per_pass": committed,
            "windows": statistics.windows[:passes],
            "acceptance_map": acceptance_map.tolist(),
            **execution,
        }
        for row, picture_seed, passes, committed, acceptance_map in zip(
            rows,
            statistics.seeds,
            statistics.forward_passes,
            statistics.committed_per_pass,
            statistics.acceptance_map,
        )
    ]


def summary(record: dict[str, Any]) -> str:
    seconds = sum(record["seconds"].values())
    return f"{record['tokens']} tokens in {record['forward_passes']} forward passes, {seconds:.2f} s"
