"""Scores a trained run on held-out captions, beside what the judge can at most award."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..benchmark.contenders import at_defaults
from ..benchmark.drawing import draw
from ..benchmark.fidelity import held_out_scenes
from ..benchmark.journal import Journal
from ..benchmark.prompt_fidelity import ceilings, measure_fidelity
from ..pipelines import SJDJanusPipeline
from ..pipelines.pictures import contact_sheet, render_tokens, to_pictures
from ..schedulers import SCHEDULERS, SeededJacobiScheduler
from .export import SAMPLING, build_processor, load_trained
from .pixels import PixelRecipe, picture_batch
from .scenes import KINDS
from .transformer import LOG_FILE, write_atomically

BATCH = 50  # pictures drawn at once


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
    scores = ceilings(pipe, min(per_kind, 100), seed)
    sampling = {"guidance_scale": guidance_scale, "temperature": temperature, "top_p": top_p}
    for contender in at_defaults(schedulers):
        (result,) = measure_fidelity(pipe, [contender], per_kind, Journal(), seed, BATCH, sampling)
        scores |= {f"{contender.name}, {kind}": result["scores"][kind] for kind in KINDS}
        for kind in KINDS:
            print(
                contender.name, kind, {key: round(rate, 3) for key, rate in result["scores"][kind].items()}, flush=True
            )
    if grid is not None:
        shown = [
            sample
            for kind in KINDS
            for sample in samples(pipe, schedulers[0], kind, min(per_kind, 16), seed, sampling)
        ]
        write_atomically(Path(grid), lambda path: contact_sheet(shown, 8).save(path, format="PNG"))
    encoder_trained = PixelRecipe(Path(folder), "encoder").weights_file.exists()
    last = json.loads((Path(folder) / LOG_FILE).read_text().splitlines()[-1])
    return {
        "scores": scores,
        "sampling": sampling | {"seed": seed},
        "training": {"images": last["images"], "steps": last["step"], "seconds": last["seconds"]},
        "encoder_accuracy": encoder_accuracy(pipe.model) if encoder_trained else None,
    }


def samples(
    pipe: SJDJanusPipeline, scheduler: str, kind: str, count: int, seed: int, sampling: dict[str, float]
) -> list[Image.Image]:
    """The first pictures that `measure_fidelity` judges."""
    captions, _ = zip(*held_out_scenes(count, kind, seed))
    return to_pictures(render_tokens(pipe, draw(pipe, SCHEDULERS[scheduler](), captions, seed, sampling).tokens))
