"""Trains the autoregressive transformer on endless scenes, on one process or several (torchrun, gloo).

The run is timed, not counted: warmup, plateau, then linear decay over the last `decay_minutes`. A saved run resumes
and can be given more minutes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration

from ..emoji.captions import PAD
from ..emoji.codes import BACKGROUND_CODES
from .architecture import build_config, build_model, image_logits
from .batches import MIXED, SINGLES_ONLY, BatchStream, probe
from .objective import position_weights, token_law
from .optimization import Optimizer, rate_factor, update_average

TRAINED = (
    "model.language_model.",
    "model.generation_embeddings.",
    "model.generation_aligner.",
    "model.generation_head.",
)
AVERAGE_FILE, STATE_FILE, LOG_FILE = "transformer.safetensors", "transformer_state.pt", "transformer.jsonl"


@dataclass
class TransformerRecipe:
    """How to train; times in minutes, sizes per process."""

    folder: Path
    minutes: float = 120.0
    decay_minutes: float = 30.0
    batch_size: int = 8
    threads: int = 1
    muon_rate: float = 2.5e-3
    adam_rate: float = 1.5e-3
    warmup: int = 60
    average_decay: float = 0.998
    caption_weight: float = 0.05
    singles_first: int = 18_000  # images before counts and relations join
    log_every: int = 25
    probe_every: int = 200
    probe_rows: int = 64
    save_minutes: float = 5.0
    max_steps: int = 0  # 0: until the time is up
    seed: int = 0


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters on the image generation path, by name."""
    return {name: p for name, p in model.named_parameters() if name.startswith(TRAINED)}


def write_atomically(path: Path, write) -> None:
    """Call `write(temporary_path)`, then move the result into place."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    temporary.replace(path)


def append_log(path: Path, entry: dict) -> None:
    """Add a line of JSON to a log and show it."""
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in entry.items()), flush=True)


def save_run(
    average_file: Path,
    state_file: Path,
    named: dict[str, nn.Parameter],
    average: list[torch.Tensor],
    optimizer: Optimizer,
    progress: dict,
) -> None:
    """Write the averaged weights, and what a run needs to go on."""
    write_atomically(average_file, lambda path: save_file(dict(zip(named, average)), path))
    state = {"weights": {k: p.detach() for k, p in named.items()}, "optimizer": optimizer.state_dict()}
    write_atomically(state_file, lambda path: torch.save(state | {"progress": progress}, path))


def token_loss(model: JanusForConditionalGeneration, prompt: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of every image token: `[B, 256]` float32 nats."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = image_logits(model, prompt, tokens)
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)


def training_loss(
    model: JanusForConditionalGeneration,
    prompt: torch.Tensor,
    tokens: torch.Tensor,
    light: torch.Tensor,
    caption_weight: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted token loss plus caption loss, and the plain token loss for the log.

    Words are worth a few of the picture's hundred nats, at a handful of its tokens: too faint a signal to learn them
    from. Three things make it loud, none of which changes the law that is learned: soft background targets
    (`token_law`), larger weights where words matter (`position_weights`), and the caption loss, in which the last word
    before the image predicts the histogram of glyph tokens.

    Returns:
        The loss to descend and the mean negative log-likelihood of the tokens (detached), both scalar float32 nats.
    """
    with torch.autocast("cpu", torch.bfloat16):
        logits = image_logits(model, prompt, tokens, lead=1)
    logits = logits.float()
    choices, law = token_law(tokens, light)
    log_law = torch.log_softmax(logits[:, 1:], dim=-1)  # [B, N, V]
    soft = -(law * log_law.gather(-1, choices)).sum(-1)  # [B, N]
    weights = position_weights(tokens)
    plain = -log_law.detach().gather(-1, tokens[..., None]).mean()
    glyphs = (tokens >= BACKGROUND_CODES).float()  # [B, N]
    histogram = torch.zeros_like(logits[:, 0]).scatter_add_(1, tokens, glyphs / glyphs.sum(1, keepdim=True))
    captioned = (prompt[:, 1] != PAD).float()
    caption = F.cross_entropy(logits[:, 0], histogram, reduction="none")
    return (weights * soft).sum() / weights.sum() + caption_weight * (caption * captioned).mean(), plain


@contextmanager
def averaged_weights(parameters: list[nn.Parameter], average: list[torch.Tensor]) -> Iterator[None]:
    """Run a block with the averaged weights in place of the current ones."""
    current = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, current)


@torch.no_grad()
def run_probes(
    model: JanusForConditionalGeneration, probes: dict[str, dict], rank: int, world: int
) -> dict[str, float]:
    """Validation loss per kind (nats per token) and caption gaps (nats per image, wrong minus right caption)."""
    sums: dict[str, float] = {}
    for kind, rows in probes.items():
        share = {name: tensor[rank::world] for name, tensor in rows.items()}
        losses = {
            name: token_loss(model, prompt, share["tokens"]).sum(1)
            for name, prompt in share.items()
            if name != "tokens"
        }
        right = losses.pop("right")
        sums[f"{kind}_loss"] = float(right.sum()) / rows["tokens"].numel()
        for name, wrong in losses.items():
            sums[f"{name}_gap"] = float((wrong - right).sum()) / len(rows["tokens"])
    values = torch.tensor(list(sums.values()), dtype=torch.float64)
    if world > 1:
        dist.all_reduce(values)
    return dict(zip(sums, values.tolist()))


class Gradients:
    """One flat buffer for all gradients, so that processes average them (and their clocks) in a single message."""

    def __init__(self, parameters: list[nn.Parameter], world: int) -> None:
        self.parameters, self.world = parameters, world
        self.buffer = torch.zeros(sum(p.numel() for p in parameters) + 2)
        start = 0
        for p in parameters:
            p.grad = self.buffer[start : start + p.numel()].view_as(p)
            start += p.numel()

    def average(self, loss: float, seconds: float) -> tuple[float, float]:
        """Average gradients over processes and clip them to norm 1; returns the mean loss and the mean clock."""
        self.buffer[-2:] = torch.tensor([loss, seconds])
        if self.world > 1:
            dist.all_reduce(self.buffer)
            self.buffer /= self.world
        loss, seconds = self.buffer[-2:].tolist()
        gradients = self.buffer[:-2]
        gradients *= min(1.0, 1.0 / (float(gradients.norm()) + 1e-6))
        return loss, seconds

    def clear(self) -> None:
        self.buffer.zero_()


def train_transformer(recipe: TransformerRecipe, model: JanusForConditionalGeneration | None = None) -> dict:
    """Train (or go on training) until the time is up; returns the last log entry.

    Under torchrun every process draws its own scenes and gradients are averaged. Writes the averaged weights, a
    resumable state and a JSON-lines log into `recipe.folder`.

    Raises:
        RuntimeError: the loss is not finite.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    torch.set_num_threads(recipe.threads)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    folder = Path(recipe.folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = model if model is not None else build_model(build_config(), recipe.seed)
    model.train()
    model.model.vqmodel.requires_grad_(False)
    named = trained_parameters(model)
    parameters = list(named.values())
    optimizer = Optimizer(named, recipe.muon_rate, recipe.adam_rate)
    average = [p.detach().clone() for p in parameters]
    progress = {"step": 0, "images": 0, "seconds": 0.0}
    if (folder / STATE_FILE).exists():
        state = torch.load(folder / STATE_FILE, weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            torch._foreach_copy_(parameters, [state["weights"][name] for name in named])
        saved = load_file(folder / AVERAGE_FILE)
        average = [saved[name] for name in named]
        progress = state["progress"]

    elif (folder / AVERAGE_FILE).exists():  # restored from an exported checkpoint
        saved = load_file(folder / AVERAGE_FILE)
        average = [saved[name] for name in named]
        with torch.no_grad():
            torch._foreach_copy_(parameters, average)
        last = json.loads((folder / LOG_FILE).read_text().splitlines()[-1])
        progress = {name: last[name] for name in progress}

    def save() -> None:
        if rank == 0:
            save_run(folder / AVERAGE_FILE, folder / STATE_FILE, named, average, optimizer, progress)

    def log(entry: dict) -> None:
        if rank == 0:
            append_log(folder / LOG_FILE, entry)

    gradients = Gradients(parameters, world)
    stream = BatchStream(recipe.batch_size, seed=recipe.seed + 1000 * progress["step"] + rank + 1)
    probes = {
        kind: probe(kind, rows, seed=7)
        for kind, rows in (
            ("single", recipe.probe_rows),
            ("count", recipe.probe_rows // 2),
            ("relation", recipe.probe_rows // 2),
        )
    }
    start, before, first_step = time.monotonic(), progress["seconds"], progress["step"]
    seconds, last_save, window, entry = 0.0, 0.0, [], {}
    while seconds < recipe.minutes * 60 and not 0 < recipe.max_steps <= progress["step"] - first_step:
        mix = SINGLES_ONLY if progress["images"] < recipe.singles_first else MIXED
        loss, token = training_loss(model, *stream.next(mix), recipe.caption_weight)
        loss.backward()
        mean_loss, seconds = gradients.average(float(token), time.monotonic() - start)
        if not math.isfinite(mean_loss):
            raise RuntimeError(f"The loss is {mean_loss} at step {progress['step']}; lower the learning rates.")
        left = recipe.minutes * 60 - seconds
        factor = rate_factor(progress["step"] - first_step, recipe.warmup, left, recipe.decay_minutes * 60)
        optimizer.step(factor)
        gradients.clear()
        update_average(average, parameters, progress["step"], recipe.average_decay)
        window.append(mean_loss)
        images = progress["images"] + recipe.batch_size * world
        progress.update(step=progress["step"] + 1, images=images, seconds=before + seconds)
        if progress["step"] % recipe.log_every == 0:
            entry = progress | {"loss": sum(window) / len(window), "rate": factor}
            window = []
            if progress["step"] % recipe.probe_every == 0:
                with averaged_weights(parameters, average):
                    entry |= run_probes(model, probes, rank, world)
            log(entry)
        if seconds - last_save > recipe.save_minutes * 60:
            save()
            last_save = seconds
    with averaged_weights(parameters, average):
        entry = progress | run_probes(model, probes, rank, world)
    log(entry)
    save()
    return entry
