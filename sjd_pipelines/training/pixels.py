"""Trains the pixel side: first codebook and decoder (tokens to pixels), then the encoder (pixels to the same tokens).

The tokens are given (see `codes.py`), so the decoder is plain regression and the encoder plain classification.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration

from ..emoji.codes import BACKGROUND_CODES, scene_tokens
from ..emoji.glyphs import CELL, GRID
from ..emoji.scenes import place, render, sample_shading, scene_stream
from ..learning.optimization import Optimizer, rate_factor, update_average
from ..learning.recipe import Amount, Count, CountOrNone, PositiveAmount, Recipe, Seed, Share, Threads
from ..learning.runs import write_atomically
from ..learning.saved import read_weights
from ..models import render_janus_codes
from ..ranges import Range
from .architecture import build_config, build_model

DECODER_PARTS = ("quantize.", "post_quant_conv.", "decoder.")
ENCODER_PARTS = ("encoder.", "quant_conv.")
_MIX = (0.5, 0.25, 0.25)


@dataclass
class PixelRecipe(Recipe):
    """How to train one side of the pixel autoencoder.

    Attributes:
        side: "decoder" or "encoder".
        crop: cells per side of what is decoded in training; the last part of the run sees whole pictures.
        max_steps: 0 is until the time is up.
    """

    folder: Path
    side: str = "decoder"
    minutes: PositiveAmount = 30.0
    decay_minutes: Amount = 10.0
    batch_size: Count = 16
    crop: Annotated[int, Range(1, GRID, whole=True)] = 8
    threads: Threads = 1
    muon_rate: Amount = 5e-3
    adam_rate: Amount = 2e-3
    warmup: Count = 30
    average_decay: Share = 0.998
    log_every: Count = 50
    save_minutes: Amount = 5.0
    max_steps: CountOrNone = 0
    seed: Seed = 0

    @property
    def weights_file(self) -> Path:
        return Path(self.folder) / f"pixel_{self.side}.safetensors"


def picture_batch(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rendered training scenes: tokens `[count, 256]` int64 and pixels `[count, 3, 128, 128]` in [-1, 1]."""
    tokens, pictures = [], []
    for _, scene in zip(range(count), scene_stream(rng, _MIX)):
        placements, shading = place(scene, rng), sample_shading(rng)
        tokens.append(scene_tokens(scene, placements, shading))
        pictures.append(render(scene, placements, shading))
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) * 2 - 1
    return torch.from_numpy(np.stack(tokens)), pixels.contiguous()


def crop_batch(
    rng: np.random.Generator, tokens: torch.Tensor, pixels: torch.Tensor, cells: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut a random square with ink in it from each picture.

    Returns:
        tokens `[B, cells, cells]` and pixels `[B, 3, 8 * cells, 8 * cells]`.
    """
    grids = tokens.view(-1, GRID, GRID)
    cut_tokens, cut_pixels = [], []
    for grid, picture in zip(grids, pixels):
        inked = (grid >= BACKGROUND_CODES).nonzero()
        centre = inked[int(rng.integers(len(inked)))]
        row, column = (centre - cells // 2).clamp(0, GRID - cells).tolist()
        cut_tokens.append(grid[row : row + cells, column : column + cells])
        cut_pixels.append(picture[:, row * CELL : (row + cells) * CELL, column * CELL : (column + cells) * CELL])
    return torch.stack(cut_tokens), torch.stack(cut_pixels)


def reconstruction_loss(output: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """L1 + L2 + L1 of the differences between neighbouring pixels (edges); inputs `[B, 3, H, W]`."""
    error = output - pixels
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + error.square().mean() + edges


def encoder_loss(vqmodel: nn.Module, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy over negative squared distances to the codebook, the distances `encode` minimises.

    Returns:
        the loss and the share of cells whose nearest code is the right one.
    """
    with torch.autocast("cpu", torch.bfloat16):
        features = vqmodel.quant_conv(vqmodel.encoder(pixels))
    features = features.float().flatten(2).transpose(1, 2)  # [B, 256, D]
    codes = vqmodel.quantize.embedding.weight
    logits = 20 * (2 * features @ codes.T - codes.square().sum(1))  # |feature|^2 is the same for every code
    loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    return loss, (logits.detach().argmax(-1).flatten() == tokens.flatten()).float().mean()


def _start(recipe: PixelRecipe, model: JanusForConditionalGeneration | None) -> nn.Module:
    """The tokenizer that training begins with: what an earlier run has left, or random weights."""
    model = model if model is not None else build_model(build_config(), recipe.seed)
    vqmodel = model.model.vqmodel
    if recipe.side == "encoder":
        decoder_file = Path(recipe.folder) / "pixel_decoder.safetensors"
        if not decoder_file.exists():
            raise FileNotFoundError(f"{decoder_file} is missing; train the decoder first.")
        vqmodel.load_state_dict(read_weights(decoder_file), strict=False)
    if recipe.weights_file.exists():
        vqmodel.load_state_dict(read_weights(recipe.weights_file), strict=False)
    return vqmodel


def _loss(side: str, vqmodel: nn.Module, tokens: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, float]:
    """What one side descends; for the log PSNR in decibels (decoder) or the share of right tokens (encoder)."""
    if side == "encoder":
        loss, share = encoder_loss(vqmodel, pixels, tokens)
        return loss, float(share)
    with torch.autocast("cpu", torch.bfloat16):
        output = render_janus_codes(vqmodel, tokens)
    error = float((output.detach().float() - pixels).div(2).square().mean().log10())
    return reconstruction_loss(output.float(), pixels), -10 * error


def train_pixels(recipe: PixelRecipe, model: JanusForConditionalGeneration | None = None) -> dict:
    """Train the decoder with the codebook, or the encoder against them; returns the last log entry.

    Resumes from the averaged weights when they exist. The encoder starts from the trained decoder's codebook.

    Raises:
        FileNotFoundError: the encoder is asked for before a decoder exists.
    """
    torch.set_num_threads(recipe.threads)
    folder = Path(recipe.folder)
    folder.mkdir(parents=True, exist_ok=True)
    vqmodel = _start(recipe, model)
    parts = DECODER_PARTS if recipe.side == "decoder" else ENCODER_PARTS
    named = {name: p for name, p in vqmodel.named_parameters() if name.startswith(parts)}
    vqmodel.requires_grad_(False)
    parameters = list(named.values())
    for p in parameters:
        p.requires_grad_(True)
    optimizer = Optimizer(named, recipe.muon_rate, recipe.adam_rate)
    average = [p.detach().clone() for p in parameters]

    def save() -> None:
        if recipe.side == "decoder":  # decode() uses unit vectors, encode() the raw ones: store them as unit vectors
            names = list(named)
            index = names.index("quantize.embedding.weight")
            average[index] = F.normalize(average[index], dim=-1)
        weights = {name: tensor.contiguous() for name, tensor in zip(named, average)}
        write_atomically(recipe.weights_file, lambda path: save_file(weights, path))

    rng = np.random.default_rng(recipe.seed + 1)
    start, seconds, last_save, step, window, entry = time.monotonic(), 0.0, 0.0, 0, [], {}
    while seconds < recipe.minutes * 60 and not 0 < recipe.max_steps <= step:
        crop = recipe.crop if recipe.minutes * 60 - seconds > recipe.decay_minutes * 30 else GRID
        tokens, pixels = crop_batch(rng, *picture_batch(rng, recipe.batch_size * recipe.crop**2 // crop**2), crop)
        loss, figure = _loss(recipe.side, vqmodel, tokens, pixels)
        vqmodel.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        seconds = time.monotonic() - start
        left = recipe.minutes * 60 - seconds
        optimizer.step(rate_factor(step, recipe.warmup, left, recipe.decay_minutes * 60))
        update_average(average, parameters, step, recipe.average_decay)
        step += 1
        window.append((float(loss.detach()), figure))
        if step % recipe.log_every == 0:
            mean_loss, mean_figure = (sum(column) / len(window) for column in zip(*window))
            name = "psnr" if recipe.side == "decoder" else "accuracy"
            entry = {"step": step, "seconds": seconds, "loss": mean_loss, name: mean_figure}
            window = []
            with (folder / f"pixel_{recipe.side}.jsonl").open("a") as file:
                file.write(json.dumps(entry) + "\n")
            print("  ".join(f"{k} {v:.4g}" for k, v in entry.items()), flush=True)
        if seconds - last_save > recipe.save_minutes * 60:
            save()
            last_save = seconds
    save()
    return entry
