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

from ..learning.recipe import Amount, Count, CountOrNone, PositiveAmount, Share
from ..learning.runs import averaged_weights
from ..learning.saved import as_saved, read_weights
from ..learning.timed import TimedRecipe, TimedRun, run_files
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.devices import read_device
from .measures import measure
from .objective import TARGETS, Batch, Objective, Weights, pick_windows
from .student import NAME, Form, check_form, load_form, save_form, trained_weights
from .trajectories import Trajectory, check_fit, load


@dataclass
class StudentRecipe(TimedRecipe):
    """How to train; `batch_size` is in pictures.

    Attributes:
        trajectories: folders of them, separated by commas.
        windows: passes of each picture that a step learns from.
        slots: of each of these passes, the first ones; 0: all that were recorded.
        strays: share of these passes with drafts replaced by other tokens of the picture, to be led astray less.
        rank: of the additions to the linear layers; 0 trains all weights.
        alpha: the additions are multiplied by `alpha / rank`.
        consistency: weight of the law behind drafts being that at the fixed point.
        choice: weight of the seed's choice behind drafts being that at the fixed point.
        label: weight of the pictures staying what the teacher draws, or what would have been right.
        reverse: weight of the student drawing nothing that the teacher would not.
        nearer: how much less a slot counts than the one before it.
        target: what pictures teach, the teacher's `law` or their `tokens`.
        probe_pictures: of the trajectories, the last of each folder, that are measured and not learned from.
        bfloat16: compute most of a pass in bfloat16, which suits GPUs.
        start: folder of a run whose averaged weights a new run begins with, instead of the teacher's.
    """

    trajectories: str = ""
    windows: Count = 8
    slots: CountOrNone = 0
    strays: Share = 0.0
    rank: CountOrNone = 16
    alpha: PositiveAmount = 16.0
    consistency: Amount = 1.0
    choice: Amount = 0.0
    label: Amount = 30.0
    reverse: Amount = 30.0
    nearer: PositiveAmount = 1.0
    target: str = "law"
    probe_pictures: Count = 8
    bfloat16: bool = False
    start: str = ""
    muon_rate: Amount = 0.0
    adam_rate: Amount = 1e-3
    decay_minutes: Amount = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}.")
        if not (self.consistency or self.choice or self.label or self.reverse):
            raise ValueError("One of consistency, choice, label and reverse must be more than 0.")
        read_device(self.device)


def train_student(recipe: StudentRecipe, pipe: SJDAutoRegressivePipeline | None = None) -> dict:
    """Train, or go on training; returns the last log entry.

    Writes the averaged weights, a resumable state and a JSON-lines log into `recipe.folder`.

    Args:
        recipe: how.
        pipe: the teacher, which becomes the student; None loads `recipe.model`.

    Raises:
        ValueError: there are no trajectories, or too few, or of another model; or the folder holds another kind of
            run, or `start` does.
        ArithmeticError: the loss is not finite.
    """
    form = Form(recipe.model, recipe.rank, recipe.alpha)
    check_form(Path(recipe.folder), form)
    beginning = _beginning(recipe, form)
    drawn = _load_all(recipe)
    pipe = SJDAutoRegressivePipeline.from_pretrained(recipe.model or None) if pipe is None else pipe
    pipe.set_progress_bar_config(disable=True)
    pipe = pipe.to(recipe.device)
    check_fit([one for folder in drawn for one in folder], pipe.image_layout(None, None))
    named = trained_weights(pipe, form, drawn[0][0].prompts[0])
    originals = [p.detach().clone() for p in named.values()]
    if beginning:
        _begin_with(beginning, named)
    save_form(Path(recipe.folder), form)
    run = TimedRun(NAME, named, recipe)
    weights = Weights(recipe.consistency, recipe.choice, recipe.label, recipe.reverse, recipe.nearer)
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


def _beginning(recipe: StudentRecipe, form: Form) -> Path | None:
    """The averaged weights that a new run begins with, if it does; one that goes on has its own."""
    if not recipe.start or run_files(Path(recipe.folder), NAME)[1].exists():
        return None
    if (before := load_form(Path(recipe.start))) != form:
        raise ValueError(f"{recipe.start} holds a run of {asdict(before)}; a run that begins with it must be like it.")
    return run_files(Path(recipe.start), NAME)[0]


def _load_all(recipe: StudentRecipe) -> list[list[Trajectory]]:
    """Trajectories of every folder, with pictures to learn from besides those that are measured."""
    folders = [folder.strip() for folder in recipe.trajectories.split(",") if folder.strip()]
    if not folders:
        raise ValueError("trajectories must name folders that `trajectories` has written, separated by commas.")
    drawn = [load(Path(folder)) for folder in folders]
    for folder, trajectories in zip(folders, drawn):
        if not _learned(trajectories, recipe.probe_pictures):
            raise ValueError(
                f"{folder} holds {len(trajectories[0].prompts)} pictures, and the last {recipe.probe_pictures} are "
                "measured and not learned from: record more, or lower probe_pictures."
            )
    widest = max(one.drafts.shape[-1] for trajectories in drawn for one in trajectories)
    if recipe.slots > widest:
        raise ValueError(f"slots must be at most {widest}, the window they were recorded with, got {recipe.slots}.")
    return drawn


def _learned(trajectories: Sequence[Trajectory], measured: int) -> list[tuple[Trajectory, int]]:
    """Those of a folder that teach, with how many of their first pictures do: all but the last `measured` ones."""
    counts = [len(one.prompts) for one in trajectories]
    counts[-1] -= measured
    return [(one, count) for one, count in zip(trajectories, counts) if count > 0]


@torch.no_grad()
def _begin_with(file: Path, named: Mapping[str, torch.Tensor]) -> None:
    """Put the averaged weights of another run into the student."""
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
    learned = [_learned(folder, recipe.probe_pictures) for folder in drawn]
    while True:
        folder = learned[rng.integers(len(learned))]
        trajectory, pictures = folder[rng.integers(len(folder))]
        if recipe.slots:
            trajectory = replace(trajectory, drafts=trajectory.drafts[..., : recipe.slots])
        rows = torch.from_numpy(rng.permutation(pictures)[: recipe.batch_size])
        yield pick_windows(trajectory, rows, recipe.windows, free, chance, recipe.strays)
