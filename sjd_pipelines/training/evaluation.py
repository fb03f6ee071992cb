"""Scores a trained run on held-out captions and finds out what the judge can at most award."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..benchmark.fidelity import held_out_scenes, score_pictures
from ..benchmark.pictures import contact_sheet
from ..pipelines import SJDJanusPipeline
from ..schedulers import SCHEDULERS, SeededJacobiScheduler
from .codes import scene_tokens
from .export import SAMPLING, build_processor, load_trained
from .pixels import PixelRecipe, picture_batch
from .scenes import KINDS, place, render, sample_shading
from .transformer import LOG_FILE, write_atomically

BATCH = 50  # pictures drawn at once


@torch.no_grad()
def ceilings(model: torch.nn.Module, count: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Scores of true pictures: as rendered, and after tokens and pixel decoder. Nothing can score higher.

    Args:
        count: pictures per kind of scene.
    """
    rng = np.random.default_rng(seed)
    scenes = [scene for kind in KINDS for _, scene in held_out_scenes(count, kind, seed)]
    rendered, decoded = [], []
    for scene in scenes:
        placements, shading = place(scene, rng), sample_shading(rng)
        rendered.append(render(scene, placements, shading))
        tokens = torch.from_numpy(scene_tokens(scene, placements, shading))[None]
        decoded.append((model.model.vqmodel.decode(tokens)[0].float() / 2 + 0.5).clamp(0, 1))
    errors = [(d.permute(1, 2, 0) - torch.from_numpy(r)).square().mean() for d, r in zip(decoded, rendered)]
    psnr = float(-10 * torch.stack(errors).log10().mean())
    return {
        "rendered (ceiling)": score_pictures(rendered, scenes),
        "decoded from true tokens (ceiling)": score_pictures(decoded, scenes) | {"psnr": psnr},
    }


@torch.no_grad()
def encoder_accuracy(model: torch.nn.Module, count: int = 32, seed: int = 5) -> float:
    """Share of image tokens that `vqmodel.encode` recovers from rendered pictures."""
    tokens, pixels = picture_batch(np.random.default_rng(seed), count)
    return float((model.model.vqmodel.encode(pixels).image_tokens.view_as(tokens) == tokens).float().mean())


def trained_pipeline(folder: str | Path) -> SJDJanusPipeline:
    """The pipeline around a training run, as `export` would write it."""
    pipe = SJDJanusPipeline(load_trained(folder), build_processor(), SeededJacobiScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def evaluate(
    folder: str | Path,
    per_kind: int = 200,
    guidance_scale: float = SAMPLING["guidance_scale"],
    temperature: float = SAMPLING["temperature"],
    top_p: float = SAMPLING["top_p"],
    seed: int = 0,
    threads: int = 1,
    schedulers: tuple[str, ...] = ("autoregressive",),
    grid: str | Path | None = None,
) -> dict:
    """Draw held-out captions with every scheduler named, and judge the pictures.

    Args:
        per_kind: pictures for each of single, count and relation.
        schedulers: names as in `SCHEDULERS`, at their default settings.
        grid: where to write a sheet of the first scheduler's first pictures of each kind, if anywhere.

    Returns:
        `scores` by scheduler and kind, the sampling settings, and how far the training had come.
    """
    torch.set_num_threads(threads)
    pipe = trained_pipeline(folder)
    scores, shown = ceilings(pipe.model, min(per_kind, 100), seed), []
    sampling = {"guidance_scale": guidance_scale, "temperature": temperature, "top_p": top_p}
    for name in schedulers:
        pipe.scheduler = SCHEDULERS[name]()
        for kind in KINDS:
            captions, scenes = zip(*held_out_scenes(per_kind, kind, seed))
            pictures = draw(pipe, list(captions), seed, sampling)
            scores[f"{name}, {kind}"] = score_pictures(pictures, scenes)
            if name == schedulers[0]:
                shown += pictures[:16]
            print(name, kind, {key: round(value, 3) for key, value in scores[f"{name}, {kind}"].items()}, flush=True)
    if grid is not None:
        write_atomically(Path(grid), lambda path: contact_sheet(shown, 8).save(path, format="PNG"))
    encoder_trained = PixelRecipe(Path(folder), "encoder").weights_file.exists()
    last = json.loads((Path(folder) / LOG_FILE).read_text().splitlines()[-1])
    return {
        "scores": scores,
        "sampling": sampling | {"seed": seed},
        "training": {"images": last["images"], "steps": last["step"], "seconds": last["seconds"]},
        "encoder_accuracy": encoder_accuracy(pipe.model) if encoder_trained else None,
    }


def draw(pipe: SJDJanusPipeline, captions: list[str], seed: int, sampling: dict[str, float]) -> list[Image.Image]:
    """One picture per caption; picture i has seed `seed + i`."""
    pictures: list[Image.Image] = []
    for start in range(0, len(captions), BATCH):
        batch = captions[start : start + BATCH]
        generators = [torch.Generator().manual_seed(seed + start + row) for row in range(len(batch))]
        pictures += pipe(batch, generator=generators, **sampling).images
    return pictures
