"""Scores a trained run on held-out captions, beside what the judge can at most award."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..emoji.judge import ceilings, held_out_scenes, rates, score_picture
from ..emoji.scenes import KINDS
from ..learning.runs import write_atomically
from ..learning.saved import last_entry
from ..pipelines import SJDJanusPipeline
from ..pipelines.pictures import render_tokens, to_pictures
from ..pipelines.sheets import contact_sheet
from ..schedulers import SCHEDULERS, SeededJacobiScheduler
from .export import SAMPLING, build_processor, load_trained
from .pixels import PixelRecipe, picture_batch
from .transformer import LOG_FILE

BATCH = 50  # pictures drawn at once
SHOWN = 16  # of each kind, on the sheet


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
    device: str = "cpu",
) -> dict:
    """Draw held-out captions with every scheduler named, and judge the pictures.

    Args:
        per_kind: pictures for each of single, count and relation.
        schedulers: names as in `SCHEDULERS`, at their default settings.
        grid: where to write a sheet of the first scheduler's first pictures of each kind, with their captions.
        device: where they are drawn.

    Returns:
        `scores` by scheduler and kind, the sampling settings, and how far the training had come.
    """
    torch.set_num_threads(threads)
    pipe = trained_pipeline(folder).to(device)
    scores = ceilings(partial(render_tokens, pipe), min(per_kind, 100), seed)
    sampling = {"guidance_scale": guidance_scale, "temperature": temperature, "top_p": top_p}
    shown, below = [], []
    for name in dict.fromkeys(schedulers):
        pipe.scheduler = SCHEDULERS[name]()
        for kind in KINDS:
            scenes, verdicts = held_out_scenes(per_kind, kind, seed), []
            for start in range(0, per_kind, BATCH):
                captions, truths = zip(*scenes[start : start + BATCH])
                pictures = draw(pipe, captions, seed + start, sampling).cpu()
                verdicts += [score_picture(picture, truth) for picture, truth in zip(pictures, truths)]
                if name == schedulers[0] and start == 0:
                    shown += to_pictures(pictures[:SHOWN])
                    below += captions[:SHOWN]
            scores[f"{name}, {kind}"] = rates(verdicts)
            print(name, kind, {key: round(rate, 3) for key, rate in rates(verdicts).items()}, flush=True)
    if grid is not None:
        write_atomically(Path(grid), lambda path: contact_sheet(shown, 8, captions=below).save(path, format="PNG"))
    encoder_trained = PixelRecipe(Path(folder), "encoder").weights_file.exists()
    last = last_entry(Path(folder) / LOG_FILE)
    return {
        "scores": scores,
        "sampling": sampling | {"seed": seed},
        "training": {"images": last["images"], "steps": last["step"], "seconds": last["seconds"]}
        | ({"machine": last["machine"]} if "machine" in last else {}),
        "encoder_accuracy": encoder_accuracy(pipe.model) if encoder_trained else None,
    }


def draw(pipe: SJDJanusPipeline, captions: Sequence[str], seed: int, sampling: dict[str, float]) -> torch.Tensor:
    """One picture per caption, picture i from seed `seed + i`: `[B, 3, H, W]` in [0, 1]."""
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(captions))]
    return pipe(list(captions), generator=generators, output_type="pt", **sampling).images
