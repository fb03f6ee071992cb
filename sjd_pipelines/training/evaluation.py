"""Scores a trained run on held-out captions and finds out what the judge can at most award."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sjd_pipelines.benchmark.fidelity import held_out_scenes, score_pictures

from .codes import scene_tokens
from .export import SAMPLING, load_trained
from .pixels import picture_batch
from .sampling import sample_pictures
from .scenes import KINDS, place, render, sample_shading
from .transformer import LOG_FILE, write_atomically


def save_grid(pictures: torch.Tensor, path: str | Path, columns: int = 8) -> Path:
    """Write pictures `[N, 3, H, W]` in [0, 1] as one PNG."""
    path = Path(path)
    count, _, height, width = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = (
            picture.permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
        )
    write_atomically(path, lambda temporary: Image.fromarray(sheet).save(temporary, format="PNG"))
    return path


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


def evaluate(
    folder: str | Path,
    per_kind: int = 200,
    guidance_scale: float = SAMPLING["guidance_scale"],
    temperature: float = SAMPLING["temperature"],
    seed: int = 0,
    threads: int = 1,
    grid: str | Path | None = None,
) -> dict:
    """Draw held-out captions and judge them.

    Args:
        per_kind: pictures for each of single, count and relation.
        grid: where to write a sheet of the first pictures of each kind, if anywhere.

    Returns:
        `scores` by kind, the sampling settings, and how far the training had come.
    """
    torch.set_num_threads(threads)
    model = load_trained(folder)
    scores, shown = ceilings(model, min(per_kind, 100), seed), []
    for kind in KINDS:
        captions, scenes = zip(*held_out_scenes(per_kind, kind, seed))
        pictures, _ = sample_pictures(model, list(captions), guidance_scale, temperature, seed)
        scores[kind] = score_pictures(list(pictures), scenes)
        shown.append(pictures[:16])
        print(kind, {name: round(value, 3) for name, value in scores[kind].items()}, flush=True)
    if grid is not None:
        save_grid(torch.cat(shown), grid)
    last = json.loads((Path(folder) / LOG_FILE).read_text().splitlines()[-1])
    return {
        "scores": scores,
        "sampling": {"guidance_scale": guidance_scale, "temperature": temperature, "seed": seed},
        "training": {"images": last["images"], "steps": last["step"], "seconds": last["seconds"]},
        "encoder_accuracy": encoder_accuracy(model),
    }
