"""Trains the bundled flow on endless rendered pictures; on a CPU or a GPU, and on from where it stopped."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..emoji.flow_world import SIDE, PictureStream
from ..emoji.glyphs import OBJECTS
from ..models.tarflow import TarFlowTransformer2DModel
from .optimization import Optimizer, update_average
from .transformer import append_log, averaged_weights, stop_signals, write_atomically

AVERAGE_FILE, STATE_FILE, LOG_FILE = "flow.safetensors", "flow_state.pt", "flow.jsonl"
COURSE_FILE = "course.json"  # what the model card says of the run
LABEL_DROPOUT = 0.1
PROBE_SEED = 7

ARCHITECTURE = {
    "sample_size": SIDE,
    "patch_size": 2,
    "hidden_size": 64,
    "num_blocks": 4,
    "layers_per_block": 2,
    "attention_head_dim": 32,
    "num_classes": len(OBJECTS),
    "noise_std": 0.1,
}


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


PHASES = (
    Phase(3_200, 32, 1.0, 0.99),
    Phase(150_400, 32, 1.0, 0.995),
    Phase(249_600, 64, 0.0, 0.998),
)


@dataclass
class FlowRecipe:
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
    """

    folder: Path
    phases: tuple[Phase, ...] = PHASES
    scale: float = 1.0
    batches: int = 1
    muon_rate: float = 1.5e-2
    adam_rate: float = 3e-3
    minutes: float = 0.0
    max_steps: int = 0
    threads: int = 1
    device: str = "cpu"
    log_pictures: int = 6_400
    save_minutes: float = 5.0
    seed: int = 0
    architecture: dict = field(default_factory=lambda: dict(ARCHITECTURE))

    @property
    def course(self) -> tuple[Phase, ...]:
        """The phases at this run's scale."""
        return tuple(
            replace(phase, pictures=round(phase.pictures * self.scale), batch_size=phase.batch_size * self.batches)
            for phase in self.phases
        )


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


def build_model(architecture: dict, seed: int) -> TarFlowTransformer2DModel:
    """A flow with random weights; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TarFlowTransformer2DModel(**architecture)


def flow_loss(
    model: TarFlowTransformer2DModel, pixels: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`z^2 / 2 - log det`, both per dimension: the negative log-likelihood up to a constant, `[B]`; and z."""
    encoded = model.encode(pixels, labels)
    return 0.5 * encoded.latents.square().mean((1, 2)) - encoded.log_det, encoded.latents


class FlowTraining:
    """A run: weights, averaged weights, optimizer and how far it has come."""

    def __init__(self, recipe: FlowRecipe):
        self.recipe, self.device = recipe, torch.device(recipe.device)
        recipe.folder.mkdir(parents=True, exist_ok=True)
        self.model = build_model(recipe.architecture, recipe.seed)
        torch.nn.Module.to(self.model, self.device)
        self.named = dict(self.model.named_parameters())
        self.parameters = list(self.named.values())
        # To the optimizer the projections between patches and states are tables.
        roles = {
            name.replace("proj_in", "embed_in").replace("proj_out", "embed_out"): p for name, p in self.named.items()
        }
        self.optimizer = Optimizer(roles, recipe.muon_rate, recipe.adam_rate)
        self.average = [p.detach().clone() for p in self.parameters]
        self.progress = {"pictures": 0, "step": 0, "seconds": 0.0}
        self.resume()

    def resume(self) -> None:
        """Take up what `save` has written, if anything."""
        state_file = self.recipe.folder / STATE_FILE
        if not state_file.exists():
            return
        state = torch.load(state_file, map_location=self.device, weights_only=True)
        if state["architecture"] != self.recipe.architecture:
            raise ValueError(f"{self.recipe.folder} holds a run of another architecture; choose another folder.")
        self.optimizer.load_state_dict(state["optimizer"])
        self.model.load_state_dict(state["model"])
        with torch.no_grad():
            torch._foreach_copy_(self.average, [state["average"][name] for name in self.named])
        self.progress = state["progress"]

    def save(self) -> None:
        """Write the averaged weights, and what it takes to go on."""
        average = dict(zip(self.named, (p.cpu() for p in self.average)))
        if self.model.config.volume_preserving:
            average["var"] = self.model.var.cpu()
        write_atomically(self.recipe.folder / AVERAGE_FILE, lambda path: save_file(average, path))
        state = {
            "architecture": self.recipe.architecture,
            "model": self.model.state_dict(),
            "average": dict(zip(self.named, self.average)),
            "optimizer": self.optimizer.state_dict(),
            "progress": self.progress,
        }
        write_atomically(self.recipe.folder / STATE_FILE, lambda path: torch.save(state, path))
        course = {"scale": self.recipe.scale, "batches": self.recipe.batches, "device": self.recipe.device}
        course["phases"] = [asdict(phase) for phase in self.recipe.course]
        write_atomically(self.recipe.folder / COURSE_FILE, lambda path: path.write_text(json.dumps(course) + "\n"))

    def step(self, stream: PictureStream, phase: Phase, rate: float) -> torch.Tensor:
        """One step; returns the mean loss (nats per dimension, up to a constant).

        What is drawn depends on how many pictures there were before: a run that was stopped goes on as if it had not.
        """
        stream.generator.manual_seed(self.recipe.seed + 1 + self.progress["pictures"])
        pixels, labels = stream.next()
        dropped = torch.rand(labels.shape, generator=stream.generator, device=self.device) < LABEL_DROPOUT
        noise = torch.randn(pixels.shape, generator=stream.generator, device=self.device)
        noisy = pixels + self.model.config.noise_std * noise
        with torch.autocast(self.device.type, torch.bfloat16):
            losses, latents = flow_loss(self.model, noisy, labels.masked_fill(dropped, -1))
            loss = losses.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step(rate)
        self.model.zero_grad()
        if self.model.config.volume_preserving:
            self.model.update_prior(latents.detach())
        update_average(self.average, self.parameters, self.progress["step"], phase.average_decay)
        return loss.detach()

    @torch.no_grad()
    def probe(self, count: int = 96) -> float:
        """Loss of the averaged weights on pictures with noise that are always the same."""
        stream = PictureStream(count, PROBE_SEED)
        pixels, labels = stream.next()
        noise = self.model.config.noise_std * torch.randn(pixels.shape, generator=stream.generator)
        with averaged_weights(self.parameters, self.average):
            losses, _ = flow_loss(self.model, (pixels + noise).to(self.device), labels.to(self.device))
        return float(losses.mean())

    def train(self) -> dict:
        """Step to the end of the phases, or until the time is up; returns the last log entry.

        Raises:
            RuntimeError: the loss is not finite.
        """
        recipe, progress, course = self.recipe, self.progress, self.recipe.course
        begin, before, first_step, saved = time.monotonic(), progress["seconds"], progress["step"], time.monotonic()
        losses, entry, stream, next_log = [], {}, None, progress["pictures"] + recipe.log_pictures
        with stop_signals() as stop:
            while (now := schedule(course, progress["pictures"])) is not None and not stop.is_set():
                if recipe.minutes and time.monotonic() - begin > recipe.minutes * 60:
                    break
                if 0 < recipe.max_steps <= progress["step"] - first_step:
                    break
                phase, rate = now
                if stream is None or stream.batch_size != phase.batch_size:
                    stream = PictureStream(phase.batch_size, recipe.seed, self.device)
                losses.append(self.step(stream, phase, rate))
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
        """Write the mean loss since the last time and the probe; raises `RuntimeError` if it is not finite."""
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise RuntimeError(f"The loss is {mean} at step {self.progress['step']}; lower the learning rates.")
        entry = self.progress | {"loss": mean, "probe": self.probe(), "rate": rate}
        append_log(self.recipe.folder / LOG_FILE, entry)
        return entry


def train_flow(recipe: FlowRecipe) -> dict:
    """Train, or train on; returns the last log entry."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    return FlowTraining(recipe).train()


def load_trained(folder: str | Path) -> TarFlowTransformer2DModel:
    """The flow with the averaged weights of a run.

    Raises:
        FileNotFoundError: nothing has been saved yet.
    """
    folder = Path(folder)
    state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    model = build_model(state["architecture"], 0)
    model.load_state_dict(state["model"] | load_file(folder / AVERAGE_FILE))
    return model.eval()


def training_facts(folder: str | Path) -> dict:
    """How far a run has come, from the last line of its log, and its `course`."""
    folder = Path(folder)
    last = json.loads((folder / LOG_FILE).read_text().splitlines()[-1])
    return last | {"course": json.loads((folder / COURSE_FILE).read_text())}
