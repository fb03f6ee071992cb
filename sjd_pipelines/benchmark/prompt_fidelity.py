"""Prompt fidelity by scheduler: the same held-out captions and seeds for all."""

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import numpy as np
import torch

from ..emoji.codes import CODEBOOK
from ..emoji.glyphs import GRID, OBJECTS
from ..emoji.judge import rates
from ..emoji.scenes import KINDS
from ..pipelines import SJDAutoRegressivePipeline
from .contenders import Contender
from .drawing import draw, prompt_kinds, prompts_of_kind, score_run
from .journal import Journal


def measure_fidelity(
    pipe: SJDAutoRegressivePipeline,
    contenders: Sequence[Contender],
    per_kind: int,
    journal: Journal,
    seed: int = 0,
    batch_size: int = 25,
    sampling: dict[str, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Draw held-out captions of every kind with every contender, and judge the pictures if they can be judged.

    Args:
        pipe: any family.
        contenders: all of them must run on this pipeline.
        per_kind: pictures of each of single, count and relation; picture i has seed `seed + i`.
        journal: keeps every batch; `begin` must have been called.
        seed: also of the choice of captions.
        batch_size: pictures drawn at once.
        sampling: overrides of the checkpoint's sampling.
        progress: called as `progress(done, total)` after each batch.

    Returns:
        Per contender `name`, `label`, `settings`, `passes` (mean per picture), `passes_by_kind` (the same by kind
        and over `all`), `tokens_per_pass`, `committed` (at index n, how many passes committed n tokens), `scores`: by
        kind and over `all`, see `rates`; empty for a model that cannot be judged.
    """
    sampling = pipe.sampling_defaults() | (sampling or {})
    batches = [
        (kind, start, prompts_of_kind(pipe, per_kind, kind, seed)[start : start + batch_size])
        for kind in prompt_kinds(pipe)
        for start in range(0, per_kind, batch_size)
    ]
    results, done = [], 0
    for contender in contenders:
        records = []
        for kind, start, scenes in batches:
            key = f"fidelity {kind} {start}+{len(scenes)} {contender.key}"
            records.append((kind, journal.measure(key, _record, pipe, contender, scenes, seed + start, sampling)))
            done += 1
            if progress is not None:
                progress(done, len(contenders) * len(batches))
        results.append(_summary(contender, sampling, records))
    return results


def can_be_judged(pipe: SJDAutoRegressivePipeline) -> bool:
    """Whether the pipeline draws the judge's world: the grid, the codebook and the classes of the bundled models."""
    layout = pipe.image_layout(None, None)
    if pipe.class_count and not set(OBJECTS) >= set(pipe.class_names() or [""]):
        return False
    return (layout.rows, layout.columns, layout.codebook_size) == (GRID, GRID, CODEBOOK)


def _record(
    pipe: SJDAutoRegressivePipeline,
    contender: Contender,
    scenes: Sequence[tuple[str, Any]],
    seed: int,
    sampling: dict[str, float],
) -> dict[str, Any]:
    """One batch as JSON."""
    captions, truths = zip(*scenes)
    run = draw(pipe, contender.scheduler, captions, seed, sampling)
    gains = torch.tensor([gain for picture in run.committed for gain in picture])
    return {
        "passes": run.passes,
        "tokens": run.tokens.shape[1],
        "committed": gains.bincount().tolist(),
        "scores": score_run(pipe, run, truths) if can_be_judged(pipe) else [],
    }


def _summary(
    contender: Contender, sampling: dict[str, float], records: list[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    scores = {kind: [score for of, record in records if of == kind for score in record["scores"]] for kind in KINDS}
    scores["all"] = [score for kind in KINDS for score in scores[kind]]
    counts: dict[str, list[int]] = {"all": []}
    for kind, record in records:
        counts.setdefault(kind, []).extend(record["passes"])
        counts["all"] += record["passes"]
    passes = {kind: mean(given) for kind, given in counts.items()}
    histogram = np.zeros(max(len(record["committed"]) for _, record in records), dtype=int)
    for _, record in records:
        histogram[: len(record["committed"])] += record["committed"]
    return {
        "name": contender.name,
        "label": contender.label_at(sampling["temperature"]),
        "settings": contender.settings,
        "passes": passes["all"],
        "passes_by_kind": passes,
        "tokens_per_pass": records[0][1]["tokens"] / passes["all"],
        "committed": histogram.tolist(),
        "scores": {kind: rates(given) for kind, given in scores.items() if given},
    }
