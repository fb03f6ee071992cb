"""Trains the autoregressive transformer through the phases, on one process or several (torchrun).

The run is counted in pictures. It may be stopped at any moment, and goes on exactly where it was saved; a run that was
restored from an exported checkpoint goes on with a new optimizer.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader
from transformers import JanusForConditionalGeneration

from ..learning.compilation import compiled_for
from ..learning.optimization import Optimizer, update_average
from ..learning.recipe import Amount, Count, CountOrNone, PositiveAmount, Recipe, Seed, Share, Threads
from ..learning.runs import append_log, averaged_weights, machine_name, save_run, stop_signals
from ..learning.saved import as_saved, last_entry, read_state, read_weights
from . import attention
from .architecture import build_config, build_model
from .auxiliary import SceneHeads
from .batches import Batch, Batches
from .objective import LOSSES, training_losses
from .phases import PHASES, Phase, phase_at, scaled, total_pictures
from .probes import PROBES, probe, run_probes

TRAINED = (
    "model.language_model.",
    "model.generation_embeddings.",
    "model.generation_aligner.",
    "model.generation_head.",
)
AVERAGE_FILE, STATE_FILE, LOG_FILE = "transformer.safetensors", "transformer_state.pt", "transformer.jsonl"


@dataclass
class TransformerRecipe(Recipe):
    """How to train; sizes per process.

    Attributes:
        folder: of the run.
        scale: factor on the pictures of every phase; larger steps need more of them.
        batch_size: rows of one caption length.
        batches: of one step.
        device: where to train.
        workers: processes that draw batches ahead; 0 draws them in between.
        minutes: stop after so many, to go on another time; 0 goes on to the end of the phases.
        warmup: steps over which a new optimizer comes to its rates.
        max_steps: stop after so many; 0 is no limit.
    """

    folder: Path
    scale: PositiveAmount = 1.0
    batch_size: Count = 8
    batches: Count = 2
    device: str = "cpu"
    threads: Threads = 1
    workers: CountOrNone = 0
    minutes: Amount = 0.0
    muon_rate: Amount = 2.5e-3
    adam_rate: Amount = 1.5e-3
    warmup: Count = 60
    average_decay: Share = 0.998
    log_every: Count = 25
    probe_every: Count = 250
    probe_rows: Count = 24
    save_minutes: Amount = 4.0
    max_steps: CountOrNone = 0
    seed: Seed = 0

    @classmethod
    def on(cls, device: str, **options: Any) -> TransformerRecipe:
        """The recipe for a device: as declared on a CPU, in large steps (`ON_CUDA`) on a GPU, but for `options`."""
        return cls(device=device, **(ON_CUDA if torch.device(device).type == "cuda" else {}) | options)


# An H200 takes 8,900 pictures a second: five minutes for all of them. Larger steps need more pictures, not more steps.
ON_CUDA = {
    "scale": 5.866,
    "batch_size": 256,
    "workers": 15,
    "muon_rate": 3.5e-3,
    "adam_rate": 2e-3,
    "log_every": 50,
    "probe_every": 500,
}


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters on the image generation path, by name."""
    return {name: p for name, p in model.named_parameters() if name.startswith(TRAINED)}


class Gradients:
    """One flat buffer for all gradients, so that processes average them, and what they report, in a single message.

    Args:
        parameters: get their `grad` here.
        reported: how many numbers a process reports per step.
        world: processes.
    """

    def __init__(self, parameters: list[nn.Parameter], reported: int, world: int) -> None:
        self.world, self.reported = world, reported
        self.buffer = torch.zeros(sum(p.numel() for p in parameters) + reported, device=parameters[0].device)
        start = 0
        for p in parameters:
            p.grad = self.buffer[start : start + p.numel()].view_as(p)
            start += p.numel()

    def average(self, report: torch.Tensor) -> list[float]:
        """Average gradients over processes and clip them to norm 1; returns the average report."""
        self.buffer[-self.reported :] = report
        if self.world > 1:
            dist.all_reduce(self.buffer)
            self.buffer /= self.world
        gradients = self.buffer[: -self.reported]
        gradients *= (1 / (gradients.norm() + 1e-6)).clamp(max=1)
        return self.buffer[-self.reported :].tolist()

    def clear(self) -> None:
        self.buffer.zero_()


class Run:
    """A run of the transformer in one process: what is trained, its averages, its optimizer and how far it is.

    Attributes:
        progress: `step`, `images` and `seconds` so far; `started`, the step that the optimizer began at.
    """

    def __init__(self, recipe: TransformerRecipe, model: JanusForConditionalGeneration, phases: Sequence[Phase]):
        self.world, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.recipe, self.phases = recipe, phases
        self.folder, self.device = Path(recipe.folder), torch.device(recipe.device)
        self.model = model.to(self.device).train()
        self.model.model.vqmodel.requires_grad_(False)
        self.model.model.language_model.set_attn_implementation(attention.NAME)
        self.heads = SceneHeads(model.config.text_config.hidden_size).to(self.device)
        averaged = trained_parameters(model)
        self.named = averaged | {f"scene_heads.{name}": p for name, p in self.heads.named_parameters()}
        self.averaged = list(averaged.values())
        self.average = [p.detach().clone() for p in self.averaged]
        self.optimizer = Optimizer(self.named, recipe.muon_rate, recipe.adam_rate)
        self.gradients = Gradients(list(self.named.values()), len(LOSSES) + 1, self.world)
        self.losses = compiled_for(self.device, training_losses)
        self.progress = {"step": 0, "images": 0, "seconds": 0.0, "started": 0}
        self._resume()

    def _resume(self) -> None:
        if not (self.folder / AVERAGE_FILE).exists():
            return
        saved = read_weights(self.folder / AVERAGE_FILE, str(self.device))
        weights, file = saved, self.folder / STATE_FILE
        if file.exists():
            state = read_state(file, self.device)
            with as_saved(file):
                self.optimizer.load_state_dict(state["optimizer"])
                weights, self.progress = state["weights"], state["progress"]
        else:  # restored from an exported checkpoint
            file = self.folder / LOG_FILE
            last = last_entry(file)
            with as_saved(file):
                done = {name: last[name] for name in ("step", "images", "seconds")}
            self.progress = done | {"started": last["step"]}
        with torch.no_grad(), as_saved(self.folder):
            torch._foreach_copy_(self.average, [saved[name] for name, _ in zip(self.named, self.average)])
            for name, tensor in weights.items():
                self.named[name].copy_(tensor)

    @property
    def machine(self) -> str:
        """What trains, see `machine_name`."""
        return machine_name(self.device, self.world * self.recipe.threads)

    @property
    def finished(self) -> bool:
        return self.progress["images"] >= total_pictures(self.phases)

    def batches(self) -> Iterator[Batch]:
        """This process's batches from here on, without an end."""
        first = self.progress["images"] // self.recipe.batch_size + self.rank
        loader = DataLoader(
            Batches(self.phases, self.recipe.batch_size, self.recipe.seed),
            batch_size=None,
            sampler=itertools.count(first, self.world),
            num_workers=self.recipe.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # spares the global one
        )
        return (batch.to(self.device) for batch in loader)

    def step(self, batches: Iterator[Batch], stop: bool) -> tuple[list[float], bool]:
        """Take one step; returns the losses, see `LOSSES`, and whether any process wants to stop.

        Raises:
            ArithmeticError: the loss is not finite.
        """
        recipe, progress = self.recipe, self.progress
        phase, rate = phase_at(self.phases, progress["images"])
        weights = torch.tensor(phase.weights, device=self.device) / recipe.batches
        reports = []
        for _ in range(recipe.batches):
            losses, report = self.losses(self.model, self.heads, next(batches))
            (losses @ weights).backward()
            reports.append(report)
        report = torch.stack(reports).nanmean(0)
        *losses, stops = self.gradients.average(torch.cat([report, report.new_tensor([float(stop)])]))
        if not math.isfinite(losses[0]):
            raise ArithmeticError(f"The loss is {losses[0]} at step {progress['step']}; lower the learning rates.")
        self.optimizer.step(rate * min(1.0, (progress["step"] - progress["started"] + 1) / recipe.warmup))
        self.gradients.clear()
        update_average(self.average, self.averaged, progress["step"], recipe.average_decay)
        progress["step"] += 1
        progress["images"] += recipe.batch_size * recipe.batches * self.world
        return losses, stops > 0

    def probe(self, probes: dict[str, dict[str, torch.Tensor]]) -> dict[str, float]:
        """What the averaged weights make of the probes."""
        with averaged_weights(self.averaged, self.average):
            return run_probes(self.model, probes)

    def save(self) -> None:
        if self.rank == 0:
            save_run(
                self.folder / AVERAGE_FILE,
                self.folder / STATE_FILE,
                self.named,
                self.average,
                self.optimizer,
                self.progress,
            )

    def log(self, entry: dict) -> None:
        if self.rank == 0:
            append_log(self.folder / LOG_FILE, entry)


def train_transformer(
    recipe: TransformerRecipe,
    model: JanusForConditionalGeneration | None = None,
    phases: Sequence[Phase] = PHASES,
) -> bool:
    """Train, or go on training, through the phases; returns whether their end was reached.

    Stops before it after `recipe.minutes`, and on SIGINT or SIGTERM. Under torchrun every process draws its own
    scenes and gradients are averaged. Writes the averaged weights, a resumable state and a JSON-lines log into
    `recipe.folder`.

    Raises:
        ArithmeticError: the loss is not finite.
    """
    torch.set_num_threads(recipe.threads)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    Path(recipe.folder).mkdir(parents=True, exist_ok=True)
    model = model if model is not None else build_model(build_config(), recipe.seed)
    run = Run(recipe, model, scaled(phases, recipe.scale))
    if run.finished:
        return True
    probes = {
        name: {column: rows.to(run.device) for column, rows in probe(name, recipe.probe_rows).items()}
        for name in PROBES
    }
    with stop_signals() as stop:
        _train(run, probes, stop)
        run.save()
        ending = run.probe(probes) if run.finished else {}
        run.log(run.progress | {"machine": run.machine} | ending)
    return run.finished


def _train(run: Run, probes: dict[str, dict[str, torch.Tensor]], stop: threading.Event) -> None:
    recipe, progress = run.recipe, run.progress
    batches, window, steps, stopping = run.batches(), [], 0, False
    start = last_save = time.monotonic()
    before = progress["seconds"]
    while not (run.finished or stopping or 0 < recipe.max_steps <= steps):
        over = 0 < recipe.minutes * 60 <= time.monotonic() - start
        losses, stopping = run.step(batches, stop.is_set() or over)
        window.append(losses)
        steps += 1
        progress["seconds"] = before + time.monotonic() - start
        if progress["step"] % recipe.log_every == 0:
            means = torch.tensor(window).nanmean(0).tolist()
            entry = progress | dict(zip(LOSSES, means)) | {"rate": phase_at(run.phases, progress["images"])[1]}
            window = []
            if progress["step"] % recipe.probe_every == 0:
                entry |= run.probe(probes)
            run.log(entry)
        if time.monotonic() - last_save > recipe.save_minutes * 60:
            run.save()
            last_save = time.monotonic()
