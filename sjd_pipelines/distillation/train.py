"""Trains a student on trajectories of its teacher until the time is up; resumes; on a CPU or a GPU.

The student starts as its teacher. Its trained weights as they were at first are kept, so that the teacher is at hand
for the price of putting them back (`averaged_weights`), with no second model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..learning.runs import averaged_weights
from ..learning.saved import as_saved, read_weights
from ..learning.timed import TimedRecipe, TimedRun, run_files
from ..pipelines import SJDAutoRegressivePipeline
from .measures import measure
from .objective import TARGETS, Batch, Objective, Weights, pick_windows
from .student import NAME, Form, load_form, save_form, trained_weights
from .trajectories import Trajectory, load


@dataclass
class StudentRecipe(TimedRecipe):
    """How to train; `batch_size` is in pictures.

    Attributes:
        trajectories: folders of them, separated by commas.
        windows: passes of each picture that a step learns from.
        slots: of each of these passes, the first ones; 0: all that were recorded.
        rank: of the additions to the linear layers; 0 trains all weights.
        alpha: see `Form`.
        consistency, choice, label, nearer: weights of the losses, see `Weights`.
        target: what pictures teach, the teacher's `law` or their `tokens`.
        probe_pictures: of the trajectories, the last of each folder, that are measured and not learned from.
        bfloat16: compute most of a pass in bfloat16, which suits GPUs.
        start: folder of a run whose averaged weights a new run begins with, instead of the teacher's.
    """

    trajectories: str = ""
    windows: int = 8
    slots: int = 0
    rank: int = 16
    alpha: float = 16.0
    consistency: float = 1.0
    choice: float = 0.0
    label: float = 3.0
    nearer: float = 1.0
    target: str = "law"
    probe_pictures: int = 8
    bfloat16: bool = False
    start: str = ""
    muon_rate: float = 0.0
    adam_rate: float = 1e-3
    decay_minutes: float = 10.0


def train_student(recipe: StudentRecipe, pipe: SJDAutoRegressivePipeline | None = None) -> dict:
    """Train, or go on training; returns the last log entry.

    Writes the averaged weights, a resumable state and a JSON-lines log into `recipe.folder`.

    Args:
        recipe: how.
        pipe: the teacher, which becomes the student; None loads `recipe.model`.

    Raises:
        ValueError: there are no trajectories, or the folder holds another kind of run, or `start` does.
        RuntimeError: the loss is not finite.
    """
    if recipe.target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {recipe.target!r}.")
    form = Form(recipe.model, recipe.rank, recipe.alpha)
    if recipe.start and (before := load_form(Path(recipe.start))) != form:
        raise ValueError(f"{recipe.start} holds a run of {asdict(before)}; a run that begins with it must be like it.")
    drawn = [load(Path(folder)) for folder in recipe.trajectories.split(",")]
    save_form(Path(recipe.folder), form)
    pipe = SJDAutoRegressivePipeline.from_pretrained(recipe.model or None) if pipe is None else pipe
    pipe.set_progress_bar_config(disable=True)
    pipe = pipe.to(recipe.device)
    named = trained_weights(pipe, form, drawn[0][0].prompts[0])
    originals = [p.detach().clone() for p in named.values()]
    if recipe.start:
        _begin_with(Path(recipe.start), named)
    run = TimedRun(NAME, named, recipe)
    weights = Weights(recipe.consistency, recipe.choice, recipe.label, recipe.nearer)
    objective = Objective(pipe, weights, recipe.target)
    batches = _batches(drawn, objective, recipe, run.progress["step"])
    autocast = partial(torch.autocast, pipe.device.type, torch.bfloat16, enabled=recipe.bfloat16)

    def loss_of() -> tuple[torch.Tensor, dict[str, float]]:
        batch = next(batches).to(pipe.device)
        run.progress["images"] += len(batch.prompts)
        prompt = objective.encode(batch)
        # Autocast keeps its copies of weights to the end of a block: the teacher's must not be the student's.
        with averaged_weights(run.parameters, originals), autocast():
            teacher = objective.teacher(batch, prompt)
        with autocast():
            return objective.loss(batch, prompt, teacher)

    def probe() -> dict[str, float]:
        return measure(pipe, [folder[-1] for folder in drawn], recipe.probe_pictures)

    return run.train(loss_of, probe)


@torch.no_grad()
def _begin_with(folder: Path, named: Mapping[str, torch.Tensor]) -> None:
    """Put the averaged weights of another run into the student."""
    file = run_files(folder, NAME)[0]
    weights = read_weights(file)
    with as_saved(file):
        for name, parameter in named.items():
            parameter.copy_(weights[name])


def _batches(
    drawn: Sequence[Sequence[Trajectory]], objective: Objective, recipe: StudentRecipe, step: int
) -> Iterator[Batch]:
    """Batches without an end: a folder and a trajectory of it by chance, then pictures and windows."""
    rng = np.random.default_rng([recipe.seed, step])
    chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
    free = objective.free.cpu()
    while True:
        folder = drawn[rng.integers(len(drawn))]
        index = int(rng.integers(len(folder)))
        trajectory = folder[index]
        if recipe.slots:
            trajectory = replace(trajectory, drafts=trajectory.drafts[..., : recipe.slots])
        pictures = len(trajectory.prompts)
        if index == len(folder) - 1:  # its last pictures are measured
            pictures = max(pictures - recipe.probe_pictures, 1)
        rows = torch.from_numpy(rng.permutation(pictures)[: recipe.batch_size])
        yield pick_windows(trajectory, rows, recipe.windows, free, chance)
