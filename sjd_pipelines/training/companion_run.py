"""The timed run that trains a network beside a frozen pipeline, and its export into the pipeline's folder.

Warmup, plateau, linear decay, as for the transformer. A saved run resumes and can be given more minutes; so can one
whose target has been trained on in the meantime.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ModelMixin
from safetensors.torch import load_file

from ..pipelines import SJDAutoRegressivePipeline
from .optimization import Optimizer, rate_factor, update_average
from .transformer import append_log, averaged_weights, machine_name, save_run


@dataclass
class CompanionRecipe:
    """How to train; times in minutes."""

    folder: Path
    model: str = ""  # a folder or hub id; empty is the bundled checkpoint
    minutes: float = 15.0
    decay_minutes: float = 5.0
    batch_size: int = 4
    device: str = "cpu"
    threads: int = 2
    muon_rate: float = 2.5e-3
    adam_rate: float = 1.5e-3
    warmup: int = 20
    average_decay: float = 0.99
    log_every: int = 10
    save_minutes: float = 3.0
    max_steps: int = 0  # 0: until the time is up
    seed: int = 0


def frozen_target(recipe: CompanionRecipe, pipe: SJDAutoRegressivePipeline | None = None) -> SJDAutoRegressivePipeline:
    """The pipeline that a run learns from, `pipe` or the recipe's; nothing in it is trained."""
    pipe = pipe or SJDAutoRegressivePipeline.from_pretrained(recipe.model or None)
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False)
    return pipe.to(recipe.device)


class CompanionRun:
    """One run, resumed where it was saved.

    Args:
        name: of the network's files.
        network: what is trained; gets the saved weights if there are any.
        recipe: its settings.

    Attributes:
        progress: steps and seconds so far, and images, which whoever computes the loss counts.
    """

    def __init__(self, name: str, network: ModelMixin, recipe: CompanionRecipe):
        torch.set_num_threads(recipe.threads)
        folder = Path(recipe.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe, self.folder = recipe, folder
        self.average_file, self.state_file, self.log_file = run_files(folder, name)
        self.network = network.to(recipe.device).train()
        self.named = dict(network.named_parameters())
        self.parameters = list(self.named.values())
        self.optimizer = Optimizer(self.named, recipe.muon_rate, recipe.adam_rate)
        self.average = [p.detach().clone() for p in self.parameters]
        self.progress = {"step": 0, "images": 0, "seconds": 0.0}
        if self.state_file.exists():
            state = torch.load(self.state_file, map_location=recipe.device, weights_only=True)
            self.optimizer.load_state_dict(state["optimizer"])
            saved = load_file(self.average_file, device=recipe.device)
            with torch.no_grad():
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
            RuntimeError: the loss is not finite.
        """
        recipe, progress = self.recipe, self.progress
        start, before, first_step = time.monotonic(), progress["seconds"], progress["step"]
        seconds, last_save, entries, entry = 0.0, 0.0, [], {}
        while seconds < recipe.minutes * 60 and not 0 < recipe.max_steps <= progress["step"] - first_step:
            loss, values = loss_of()
            loss.backward()
            if not math.isfinite(loss.item()):
                raise RuntimeError(f"The loss is {loss.item()} at step {progress['step']}; lower the learning rates.")
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            left = recipe.minutes * 60 - seconds
            factor = rate_factor(progress["step"] - first_step, recipe.warmup, left, recipe.decay_minutes * 60)
            self.optimizer.step(factor)
            self.network.zero_grad()
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
        with averaged_weights(self.parameters, self.average), torch.no_grad():
            entry = progress | {f"probe_{name}": value for name, value in probe().items()}
        entry["machine"] = machine_name(torch.device(recipe.device), recipe.threads)
        append_log(self.log_file, entry)
        self.save()
        return entry

    def save(self) -> None:
        """Write the averaged weights and what it takes to go on."""
        save_run(self.average_file, self.state_file, self.named, self.average, self.optimizer, self.progress)


def run_files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Averaged weights, resumable state and JSON-lines log of a run."""
    return folder / f"{name}.safetensors", folder / f"{name}_state.pt", folder / f"{name}.jsonl"


def export_companion(
    name: str, build: Callable[[dict[str, torch.Tensor]], ModelMixin], folder: Path, target: Path, card: str
) -> Path:
    """Write the averaged weights of a run, in float16, as the folder `name` of a pipeline's folder.

    Args:
        name: of the run's files and of the component.
        build: makes a network of the right shape for these weights.
        folder: the run's.
        target: the pipeline's.
        card: of the network, to be filled with the last log entry and `parameters`, in millions.

    Raises:
        FileNotFoundError: the run has saved nothing, or the target does not exist.
    """
    average_file, _, log_file = run_files(folder, name)
    weights = load_file(average_file)
    if not target.is_dir():
        raise FileNotFoundError(f"{target} is no folder; give the folder of the pipeline that the {name} is for.")
    destination = target / name
    temporary, previous = destination.with_suffix(".tmp"), destination.with_suffix(".old")
    for leftover in (temporary, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    network = build(weights)
    network.load_state_dict(weights)
    network.half().save_pretrained(temporary)
    for file in temporary.iterdir():
        file.chmod(0o644)  # weights are written for their owner alone, which a wheel would keep
    last = json.loads(log_file.read_text().splitlines()[-1])
    (temporary / "README.md").write_text(card.format(parameters=network.num_parameters() / 1e6, **last))
    if destination.exists():
        destination.rename(previous)
    temporary.rename(destination)
    shutil.rmtree(previous, ignore_errors=True)
    return destination


def means(entries: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each value over the entries that have it."""
    names = sorted({name for entry in entries for name in entry})
    values = {name: [entry[name] for entry in entries if name in entry] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}
