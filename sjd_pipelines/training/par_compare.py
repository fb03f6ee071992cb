"""Models that make their tokens in different orders, side by side: passes, seconds and what a judge sees.

All draw the same classes from the same seeds, one picture at a time, in turn and in an order that rotates, so that
whatever else the machine does meets everyone alike.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..emoji.glyphs import OBJECTS
from ..pipelines import SJDLlamaGenPipeline
from ..schedulers import (
    SCHEDULERS,
    AutoregressiveScheduler,
    DecodingScheduler,
    ParallelGroupsScheduler,
    SeededJacobiScheduler,
)
from .course import training_facts
from .par_export import SAMPLING, draw_classes, share_right, trained_pipeline
from .par_train import FILES

AHEAD = (0, 1, 2, 4)  # groups that are guessed ahead
WINDOWS = (8, 16, 32)  # of seeded Jacobi


@dataclass(frozen=True, eq=False)
class Entry:
    """A model with one of its schedulers."""

    model: str
    pipe: SJDLlamaGenPipeline
    scheduler: DecodingScheduler

    @property
    def name(self) -> str:
        window = self.scheduler.config.get("window")
        return SCHEDULERS.name_of(type(self.scheduler)) + (f", window {window}" if window else "")


def compare_orders(folders: Sequence[str | Path], count: int = 200, timed: int = 16, threads: int = 1) -> dict:
    """Draw and time.

    Args:
        folders: of training runs.
        count: pictures that are judged, of every model; all schedulers of a model draw the same ones.
        timed: pictures that each model's schedulers draw one at a time.
        threads: of the CPU.

    Returns:
        JSON: `facts`, `models` with the judge's share and the training of each, and `rows` with `passes` and
        `seconds` per picture, and `faster` and `fewer`, medians against sequential decoding of the raster model.
    """
    torch.set_num_threads(threads)
    entries, models = [], {}
    for folder in map(Path, folders):
        pipe = trained_pipeline(folder)
        last = training_facts(folder, FILES)
        models[folder.name] = {
            "groups": pipe.transformer.config.parallel_tokens,
            "object": share_right(draw_classes(pipe, count, seed=0, sampling={})),
            "training": {name: last[name] for name in ("pictures", "seconds", "probe", "course")},
        }
        entries += [Entry(folder.name, pipe, scheduler) for scheduler in _schedulers(pipe)]
    runs = _runs(entries, timed)
    plain = next((e for e in entries if isinstance(e.scheduler, AutoregressiveScheduler)), entries[0])
    facts = {"machine": platform.machine(), "threads": threads, "torch": torch.__version__, "sampling": SAMPLING}
    return {
        "facts": facts | {"judged": count, "timed": timed, "against": f"{plain.model}, {plain.name}"},
        "models": models,
        "rows": [_row(entry, runs[entry], runs[plain]) for entry in entries],
    }


def _schedulers(pipe: SJDLlamaGenPipeline) -> list[DecodingScheduler]:
    group = pipe.transformer.config.parallel_tokens
    if group == 1:
        return [AutoregressiveScheduler(), *(SeededJacobiScheduler(window=window) for window in WINDOWS)]
    return [ParallelGroupsScheduler(window=ahead * group) for ahead in AHEAD]


def _runs(entries: list[Entry], timed: int) -> dict[Entry, list[tuple[int, float]]]:
    """Passes and seconds of every picture; the tokens of a model must not depend on its scheduler."""
    runs: dict[Entry, list[tuple[int, float]]] = {entry: [] for entry in entries}
    for index in range(-1, timed):  # the first is a warm-up
        tokens: dict[str, torch.Tensor] = {}
        for turn in range(len(entries)):
            entry = entries[(turn + index) % len(entries)]
            label = max(index, 0) % len(OBJECTS)
            begin = time.perf_counter()
            output = entry.pipe(label, seeds=index + 1, scheduler=entry.scheduler, output_type="latent")
            seconds = time.perf_counter() - begin
            if not torch.equal(tokens.setdefault(entry.model, output.tokens), output.tokens):
                raise RuntimeError(f"{entry.model}: {entry.name} draws other tokens.")
            if index >= 0:
                runs[entry].append((output.statistics.forward_passes[0], seconds))
    return runs


def _row(entry: Entry, runs: list[tuple[int, float]], plain: list[tuple[int, float]]) -> dict:
    passes, seconds = zip(*runs)
    before, slow = zip(*plain)
    return {
        "model": entry.model,
        "scheduler": entry.name,
        "passes": statistics.mean(passes),
        "seconds": statistics.median(seconds),
        "fewer": statistics.mean(before) / statistics.mean(passes),
        "faster": statistics.median(one / own for one, own in zip(slow, seconds)),
    }


def comparison_table(comparison: dict) -> str:
    """The rows as a table in Markdown."""
    lines = ["| model | scheduler | object right | passes | seconds | times fewer | times as fast |", "|---" * 7 + "|"]
    for row in comparison["rows"]:
        right = comparison["models"][row["model"]]["object"]
        lines.append(
            f"| {row['model']} | {row['scheduler']} | {right:.1%} | {row['passes']:.1f} | {row['seconds']:.2f} | "
            f"{row['fewer']:.2f} | {row['faster']:.2f} |"
        )
    return "\n".join(lines)
