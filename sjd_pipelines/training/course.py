"""A run through phases that are counted in pictures: on a CPU or a GPU, and on from where it stopped.

What is trained is a subclass of `Training`: a network, its loss on a batch, and a probe.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save_file
from torch import nn

from ..disk import read_object
from ..learning.optimization import Optimizer, update_average
from ..learning.recipe import Amount, Count, CountOrNone, PositiveAmount, Recipe, Seed, ThreadsOrNone
from ..learning.runs import append_log, averaged_weights, stop_signals, write_atomically
from ..learning.saved import as_saved, last_entry, read_state

COURSE_FILE = "course.json"  # what the model card says of the run


@dataclass(frozen=True)
class Files:
    """What a run leaves in its folder: averaged weights, what it takes to go on, and a log, a line of JSON each."""

    average: str
    state: str
    log: str

    @classmethod
    def named(cls, name: str) -> Files:
        return cls(f"{name}.safetensors", f"{name}_state.pt", f"{name}.jsonl")


@dataclass(frozen=True)
class Phase:
    """A stretch of the training, counted in pictures, so that it is the same on every machine.

    Attributes:
        pictures: how many.
        batch_size: of a step.
        rate: factor on the peak learning rates at its end; it moves there from the end of the phase before, along a
            cosine.
        average_decay: of the averaged weights.
    """

    pictures: int
    batch_size: int
    rate: float
    average_decay: float


def schedule(phases: tuple[Phase, ...], pictures: int) -> tuple[Phase, float] | None:
    """The phase after so many pictures and the learning rate there; None at the end."""
    before, rate = 0, 0.0
    for phase in phases:
        if pictures < before + phase.pictures:
            share = (pictures - before + phase.batch_size) / phase.pictures
            blend = (1 - math.cos(math.pi * min(1.0, share))) / 2
            return phase, rate + (phase.rate - rate) * blend
        before, rate = before + phase.pictures, phase.rate
    return None


@dataclass
class CourseRecipe(Recipe):
    """How to train.

    Attributes:
        folder: of the run.
        phases: the whole training.
        scale: factor on the pictures of every phase.
        batches: factor on their batch sizes; larger steps need more pictures.
        muon_rate: peak learning rate of the matrices between states.
        adam_rate: that of the rest.
        minutes: stop after so long, to go on later; 0 is never.
        max_steps: likewise, after so many steps.
        threads: of a CPU; 0 leaves PyTorch's.
        device: `cpu` or `cuda`.
        log_pictures: pictures between two lines of the log.
        save_minutes: minutes between two savings.
        seed: of weights and pictures.
        architecture: of the network.
    """

    folder: Path
    phases: tuple[Phase, ...] = ()
    scale: PositiveAmount = 1.0
    batches: Count = 1
    muon_rate: Amount = 2.5e-3
    adam_rate: Amount = 1.5e-3
    minutes: Amount = 0.0
    max_steps: CountOrNone = 0
    threads: ThreadsOrNone = 1
    device: str = "cpu"
    log_pictures: Count = 6_400
    save_minutes: Amount = 5.0
    seed: Seed = 0
    architecture: dict = field(default_factory=dict)

    @property
    def course(self) -> tuple[Phase, ...]:
        """The phases at this run's scale."""
        return tuple(
            replace(phase, pictures=round(phase.pictures * self.scale), batch_size=phase.batch_size * self.batches)
            for phase in self.phases
        )


def add_course_options(parser: argparse.ArgumentParser) -> None:
    """Options of a command that trains: what of a `CourseRecipe` changes from run to run."""
    parser.add_argument("--folder", type=Path, required=True, help="the run's folder")
    parser.add_argument("--scale", type=float, default=1.0, help="of the pictures of every phase; default: 1")
    parser.add_argument("--batches", type=int, default=1, help="factor on the batch sizes; default: 1")
    parser.add_argument("--minutes", type=float, default=0.0, help="0 is to the end of the phases; default")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU; default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: %(default)s")
    parser.add_argument("--save-minutes", type=float, default=5.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Options of a command that writes the bundled folder of a run."""
    parser.add_argument("--folder", type=Path, required=True, help="the run's folder")
    parser.add_argument("--target", type=Path, help="default: the bundled folder")
    parser.add_argument("--results", type=Path, help="scores written by `evaluate`; default: those already in target")


class Training(ABC):
    """A run: weights, averaged weights, optimizer and how far it has come.

    Args:
        recipe: how to train.
        model: what.
        roles: its parameters by the name that tells the optimizer what they are, in the model's order.
    """

    files: ClassVar[Files]

    def __init__(self, recipe: CourseRecipe, model: nn.Module, roles: Mapping[str, nn.Parameter]):
        self.recipe, self.device = recipe, torch.device(recipe.device)
        recipe.folder.mkdir(parents=True, exist_ok=True)
        self.model = model
        torch.nn.Module.to(self.model, self.device)
        self.named = dict(self.model.named_parameters())
        self.parameters = list(self.named.values())
        self.optimizer = Optimizer(dict(roles), recipe.muon_rate, recipe.adam_rate)
        self.average = [p.detach().clone() for p in self.parameters]
        self.progress = {"pictures": 0, "step": 0, "seconds": 0.0}
        self.resume()

    @abstractmethod
    def loss(self, batch_size: int, seed: int) -> torch.Tensor:
        """The mean loss of pictures that are a function of `seed`; scalar float32."""

    @abstractmethod
    def probe(self) -> float:
        """The loss of the weights in place on pictures that are always the same."""

    def averaged_buffers(self) -> dict[str, torch.Tensor]:
        """What belongs to the averaged weights besides."""
        return {}

    def resume(self) -> None:
        """Take up what `save` has written, if anything."""
        state_file = self.recipe.folder / self.files.state
        if not state_file.exists():
            return
        state = read_state(state_file, self.device)
        with as_saved(state_file):
            same = state["architecture"] == self.recipe.architecture
        if not same:
            raise ValueError(f"{self.recipe.folder} holds a run of another architecture; choose another folder.")
        with torch.no_grad(), as_saved(state_file):
            self.optimizer.load_state_dict(state["optimizer"])
            self.model.load_state_dict(state["model"])
            torch._foreach_copy_(self.average, [state["average"][name] for name in self.named])
            self.progress = state["progress"]

    def save(self) -> None:
        """Write the averaged weights, and what it takes to go on."""
        average = dict(zip(self.named, (p.cpu() for p in self.average))) | self.averaged_buffers()
        write_atomically(self.recipe.folder / self.files.average, lambda path: save_file(average, path))
        state = {
            "architecture": self.recipe.architecture,
            "model": self.model.state_dict(),
            "average": dict(zip(self.named, self.average)),
            "optimizer": self.optimizer.state_dict(),
            "progress": self.progress,
        }
        write_atomically(self.recipe.folder / self.files.state, lambda path: torch.save(state, path))
        course = {"scale": self.recipe.scale, "batches": self.recipe.batches, "device": self.recipe.device}
        course["phases"] = [asdict(phase) for phase in self.recipe.course]
        write_atomically(self.recipe.folder / COURSE_FILE, lambda path: path.write_text(json.dumps(course) + "\n"))

    def step(self, phase: Phase, rate: float) -> torch.Tensor:
        """One step; returns the mean loss.

        What is drawn depends on how many pictures there were before: a run that was stopped goes on as if it had not.
        """
        loss = self.loss(phase.batch_size, self.recipe.seed + 1 + self.progress["pictures"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step(rate)
        self.model.zero_grad()
        update_average(self.average, self.parameters, self.progress["step"], phase.average_decay)
        return loss.detach()

    def train(self) -> dict:
        """Step to the end of the phases, or until the time is up; returns the last log entry.

        Raises:
            ArithmeticError: the loss is not finite.
        """
        if self.recipe.threads:
            torch.set_num_threads(self.recipe.threads)
        recipe, progress, course = self.recipe, self.progress, self.recipe.course
        begin, before, first_step, saved = time.monotonic(), progress["seconds"], progress["step"], time.monotonic()
        losses, entry, next_log = [], {}, progress["pictures"] + recipe.log_pictures
        with stop_signals() as stop:
            while (now := schedule(course, progress["pictures"])) is not None and not stop.is_set():
                if recipe.minutes and time.monotonic() - begin > recipe.minutes * 60:
                    break
                if 0 < recipe.max_steps <= progress["step"] - first_step:
                    break
                phase, rate = now
                losses.append(self.step(phase, rate))
                progress["pictures"] += phase.batch_size
                progress["step"] += 1
                progress["seconds"] = before + time.monotonic() - begin
                if progress["pictures"] >= next_log:
                    entry = self.log(losses, rate)
                    losses, next_log = [], progress["pictures"] + recipe.log_pictures
                if time.monotonic() - saved > recipe.save_minutes * 60:
                    self.save()
                    saved = time.monotonic()
        if losses:
            entry = self.log(losses, rate)
        self.save()
        return entry

    def log(self, losses: list[torch.Tensor], rate: float) -> dict:
        """Write the mean loss since the last time and the probe; raises `ArithmeticError` if it is not finite."""
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise ArithmeticError(f"The loss is {mean} at step {self.progress['step']}; lower the learning rates.")
        with averaged_weights(self.parameters, self.average):
            probe = self.probe()
        entry = self.progress | {"loss": mean, "probe": probe, "rate": rate}
        append_log(self.recipe.folder / self.files.log, entry)
        return entry


def training_facts(folder: str | Path, files: Files) -> dict:
    """How far a run has come, from the last line of its log, and its `course`."""
    folder = Path(folder)
    return last_entry(folder / files.log) | {"course": read_object(folder / COURSE_FILE)}
