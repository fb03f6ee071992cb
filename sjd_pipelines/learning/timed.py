"""A run that trains for a given time: warmup, plateau, linear decay; saved on the way, and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import torch
from torch import nn

from .optimization import Optimizer, rate_factor, update_average
from .recipe import Amount, Count, CountOrNone, PositiveAmount, Recipe, Seed, Share, Threads
from .runs import append_log, averaged_weights, check_run_folder, machine_name, save_run, stop_signals
from .saved import as_saved, read_state, read_weights


@dataclass
class TimedRecipe(Recipe):
    """How to train.

    Attributes:
        folder: of the run; the same command goes on with it.
        model: a bundled name, folder or hub id; empty is the bundled model.
        minutes: of this sitting; a run that goes on has as many again.
        decay_minutes: at their end, over which the learning rates come down to 0.
        batch_size: of a step.
        device: where to train.
        threads: of a CPU.
        muon_rate: peak learning rate of hidden matrices; 0 leaves them to the other one.
        adam_rate: peak learning rate of all else.
        warmup: steps over which the learning rates come up.
        average_decay: of the averaged weights, which are what is exported.
        log_every: steps between two lines of the log.
        save_minutes: between two savings.
        max_steps: of this sitting; 0 is until the time is up.
        seed: of chance.
    """

    folder: Path
    model: str = ""
    minutes: PositiveAmount = 15.0
    decay_minutes: Amount = 5.0
    batch_size: Count = 4
    device: str = "cpu"
    threads: Threads = 2
    muon_rate: Amount = 2.5e-3
    adam_rate: Amount = 1.5e-3
    warmup: Count = 20
    average_decay: Share = 0.99
    log_every: Count = 10
    save_minutes: Amount = 3.0
    max_steps: CountOrNone = 0
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_run_folder(Path(self.folder))


class TimedRun:
    """One run, resumed where it was saved.

    Args:
        name: of its files.
        named: what is trained, where it will be trained; gets the saved weights if there are any.
        recipe: its settings.

    Attributes:
        progress: steps and seconds so far, and images, which whoever computes the loss counts.
    """

    def __init__(self, name: str, named: dict[str, nn.Parameter], recipe: TimedRecipe):
        torch.set_num_threads(recipe.threads)
        folder = Path(recipe.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe, self.folder = recipe, folder
        self.average_file, self.state_file, self.log_file = run_files(folder, name)
        self.named, self.parameters = named, list(named.values())
        self.optimizer = Optimizer(self.named, recipe.muon_rate, recipe.adam_rate)
        self.average = [p.detach().clone() for p in self.parameters]
        self.progress = {"step": 0, "images": 0, "seconds": 0.0}
        if self.state_file.exists():
            state = read_state(self.state_file, recipe.device)
            saved = read_weights(self.average_file, recipe.device)
            with torch.no_grad(), as_saved(self.state_file):
                self.optimizer.load_state_dict(state["optimizer"])
                torch._foreach_copy_(self.parameters, [state["weights"][name] for name in self.named])
                torch._foreach_copy_(self.average, [saved[name] for name in self.named])
                self.progress = state["progress"]

    def train(
        self,
        loss_of: Callable[[], tuple[torch.Tensor, dict[str, float]]],
        probe: Callable[[], dict[str, float]],
    ) -> dict:
        """Step until the time is up; returns the last log entry.

        Args:
            loss_of: the loss of the next batch, and what to log of it.
            probe: what to log of the averaged weights at the end.

        Raises:
            ArithmeticError: the loss is not finite.
            KeyboardInterrupt: on SIGINT or SIGTERM, after the step at work; the run is saved, and not probed.
        """
        with stop_signals() as stop:
            entries = self._steps(loss_of, stop)
            self.save()
        if stop.is_set():
            raise KeyboardInterrupt
        with averaged_weights(self.parameters, self.average), torch.no_grad():
            probed = {f"probe_{name}": value for name, value in probe().items()}
        entry = self.progress | means(entries) | probed
        entry["machine"] = machine_name(torch.device(self.recipe.device), self.recipe.threads)
        append_log(self.log_file, entry)
        return entry

    def _steps(
        self, loss_of: Callable[[], tuple[torch.Tensor, dict[str, float]]], stop: Event
    ) -> list[dict[str, float]]:
        """Step until the time is up, or `stop` is set; returns what has not been logged."""
        recipe, progress = self.recipe, self.progress
        start, before, first_step = time.monotonic(), progress["seconds"], progress["step"]
        seconds, last_save, entries = 0.0, 0.0, []
        while seconds < recipe.minutes * 60 and not stop.is_set():
            if 0 < recipe.max_steps <= progress["step"] - first_step:
                break
            loss, values = loss_of()
            loss.backward()
            if not math.isfinite(loss.item()):
                raise ArithmeticError(
                    f"The loss is {loss.item()} at step {progress['step']}; lower the learning rates."
                )
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            left = recipe.minutes * 60 - seconds
            factor = rate_factor(progress["step"] - first_step, recipe.warmup, left, recipe.decay_minutes * 60)
            self.optimizer.step(factor)
            for parameter in self.parameters:
                parameter.grad = None
            update_average(self.average, self.parameters, progress["step"], recipe.average_decay)
            entries.append({"loss": loss.item()} | values)
            seconds = time.monotonic() - start
            progress.update(step=progress["step"] + 1, seconds=before + seconds)
            if progress["step"] % recipe.log_every == 0:
                append_log(self.log_file, progress | means(entries) | {"rate": factor})
                entries = []
            if seconds - last_save > recipe.save_minutes * 60:
                self.save()
                last_save = seconds
        return entries

    def save(self) -> None:
        """Write the averaged weights and what it takes to go on."""
        save_run(self.average_file, self.state_file, self.named, self.average, self.optimizer, self.progress)


def run_files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Averaged weights, resumable state and JSON-lines log of a run."""
    return folder / f"{name}.safetensors", folder / f"{name}_state.pt", folder / f"{name}.jsonl"


def means(entries: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each value over the entries that have it."""
    names = sorted({name for entry in entries for name in entry})
    values = {name: [entry[name] for entry in entries if name in entry] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}
