"""Scores a trained class-conditional model, and writes it as the folder of a bundled model."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import torch
from diffusers import VQModel
from safetensors.torch import load_file

from ..bundled import bundled_folder
from ..emoji.codes import scene_tokens
from ..emoji.glyphs import CELL, GRID, OBJECTS
from ..emoji.judge import MATCH, read_scene
from ..emoji.scenes import BACKGROUNDS, Scene, place, sample_shading
from ..learning.runs import write_atomically
from ..models import vq_model_from_published
from ..pipelines import SJDLlamaGenPipeline
from ..pipelines.pictures import render_tokens, to_pictures
from ..pipelines.sheets import contact_sheet
from ..schedulers import DecodingScheduler
from .bundle import course_options, kept_results, phases_told, write_bundle
from .course import training_facts
from .par_train import FILES, load_trained

NAME = "emoji-par"
SAMPLING = {"guidance_scale": 1.5, "temperature": 1.0, "top_k": 0, "top_p": 0.95}
BATCH = 25  # pictures drawn at once
LINE = 119  # characters of the card
_PIXELS = "model.vqmodel."  # in the weights of the bundled model whose pixel decoder this one shares


def pixel_decoder() -> VQModel:
    """Codebook and decoder of `emoji-janus`, whose tokens these are, as diffusers has them."""
    weights = load_file(bundled_folder("emoji-janus") / "model.safetensors")
    own = {name.removeprefix(_PIXELS): p.float() for name, p in weights.items() if name.startswith(_PIXELS)}
    return vq_model_from_published(own, "janus")


def trained_pipeline(folder: str | Path, scheduler: DecodingScheduler | None = None) -> SJDLlamaGenPipeline:
    """The pipeline around a training run, as `export` writes it.

    Args:
        folder: of the run.
        scheduler: None is the one that the model is made for.
    """
    transformer = load_trained(folder)
    pipe = SJDLlamaGenPipeline(
        transformer=transformer,
        vq_model=pixel_decoder(),
        scheduler=scheduler or SJDLlamaGenPipeline.scheduler_of(transformer),
        id2label=dict(enumerate(OBJECTS)),
        sampling=SAMPLING,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def evaluate_par(
    folder: str | Path,
    count: int = 200,
    guidance_scale: float | None = None,
    top_p: float | None = None,
    seed: int = 0,
    threads: int = 1,
    sheet: str | Path | None = None,
) -> dict:
    """Draw every class in turn, and judge the pictures.

    Args:
        folder: of the training run.
        count: pictures.
        guidance_scale: None is the default of the exported model, here and below.
        top_p: likewise.
        seed: of the first picture.
        threads: of the CPU.
        sheet: where to write the first picture of every class, if anywhere.

    Returns:
        `scores`: the share of pictures with exactly the right object, and of those with true tokens; the sampling
        settings, and how far the training had come.
    """
    torch.set_num_threads(threads)
    pipe = trained_pipeline(folder)
    given = {"guidance_scale": guidance_scale, "top_p": top_p}
    sampling = {name: value for name, value in given.items() if value is not None}
    pictures = draw_classes(pipe, count, seed, sampling)
    if sheet is not None:
        shown = to_pictures(pictures[: len(OBJECTS)])
        write_atomically(Path(sheet), lambda path: contact_sheet(shown, 8).save(path, format="PNG"))
    last = training_facts(folder, FILES)
    return {
        "scores": {
            "drawn": {"n": count, "object": share_right(pictures)},
            "true tokens": {"n": count, "object": share_right(true_pictures(pipe, count, seed))},
        },
        "sampling": SAMPLING | sampling | {"seed": seed},
        "training": {name: last[name] for name in ("pictures", "step", "seconds", "probe", "course")},
    }


def draw_classes(pipe: SJDLlamaGenPipeline, count: int, seed: int, sampling: dict[str, float]) -> torch.Tensor:
    """Every class in turn, picture i from seed `seed + i`: `[count, 3, H, W]` in [0, 1]."""
    drawn = []
    for batch in torch.arange(count).split(BATCH):
        labels, seeds = (batch % len(OBJECTS)).tolist(), (seed + batch).tolist()
        drawn.append(pipe(labels, seeds=seeds, output_type="pt", **sampling).images)
    return torch.cat(drawn)


def true_pictures(pipe: SJDLlamaGenPipeline, count: int, seed: int) -> torch.Tensor:
    """Every class in turn, in true tokens: `[count, 3, H, W]` in [0, 1]."""
    rng = np.random.default_rng(seed)
    names = [OBJECTS[index % len(OBJECTS)] for index in range(count)]
    scenes = [Scene((name,), BACKGROUNDS[rng.integers(len(BACKGROUNDS))]) for name in names]
    tokens = [scene_tokens(scene, place(scene, rng), sample_shading(rng)) for scene in scenes]
    return torch.cat([render_tokens(pipe, batch) for batch in torch.from_numpy(np.stack(tokens)).split(BATCH)])


def share_right(pictures: torch.Tensor) -> float:
    """Share of pictures of `draw_classes` that show one object, their own."""
    readings = [read_scene(picture).objects for picture in pictures]
    right = [reading == (OBJECTS[index % len(OBJECTS)],) for index, reading in enumerate(readings)]
    return sum(right) / len(right)


def export_par(folder: str | Path, target: str | Path | None = None, results: dict | None = None) -> Path:
    """Write a run as a pipeline's folder in half precision, replacing `target` only when all files are there.

    Args:
        folder: of the training run.
        target: None is the folder of the bundled model.
        results: scores for `results.json` and the model card; kept from `target` if left out.

    Raises:
        FileNotFoundError: there are no scores.
    """
    target = bundled_folder(NAME) if target is None else Path(target)
    results, pipe = kept_results(target) if results is None else results, trained_pipeline(folder)
    pipe.transformer.half()
    pipe.vq_model.half()
    return write_bundle(target, pipe.save_pretrained, results, model_card(results, pipe))


_CARD = """---
license: other
license_name: see-licence-section
pipeline_tag: unconditional-image-generation
tags: [llamagen, autoregressive, tiny]
---

# Emoji PAR

A class-conditional LlamaGen in miniature, trained to make {parallel} tokens at once (PAR, Wang et al. 2024, arXiv
2412.15119): {parameters:.2f} million parameters, {side} x {side} pixels from {tokens} tokens in {passes} passes. It
draws one emoji on one of ten backgrounds, and exists so that the decoder of such models can be tried, tested and
measured on a CPU.

## What it draws

{objects}

It knows nothing else: no other object, no background or size by name.

## Use

```python
from sjd_pipelines import SJDLlamaGenPipeline

pipe = SJDLlamaGenPipeline.from_pretrained("emoji-par")
pipe("dog").images[0].save("dog.png")
```

Defaults of a call: {sampling}.

## How it was made

`{command}`
makes its transformer from nothing but the glyph sheet: pictures are drawn while it trains, and a tenth of the classes
is left out. Tokens, codebook and pixel decoder are those of `emoji-janus`. Muon and AdamW, averaged weights; phases,
in pictures:
{phases}.

## Measured

Trained on {pictures} in {minutes:.0f} minutes{device}. Of {n} pictures at the defaults, every class in
turn, {object:.1%} show the right object and nothing else; of pictures with true tokens, {true:.1%}. The judge
(`sjd_pipelines/emoji/judge.py`) places glyphs on the picture and reads what explains {match:.0%} of it; it knows
nothing of the model.

## Licence

The weights and the pictures they draw derive from the glyphs of Noto Color Emoji, whose font is licensed under the SIL
Open Font License 1.1 (Copyright Google Inc.). The code is licensed as the package is.
"""


def model_card(results: dict, pipe: SJDLlamaGenPipeline) -> str:
    """The card, filled with what was measured."""
    training, scores, config = results["training"], results["scores"], pipe.transformer.config
    course, layout = training["course"], pipe.image_layout(None, None)
    done, whole = training["pictures"], sum(phase["pictures"] for phase in course["phases"])
    order = f"--order par --groups {config.parallel_tokens}" if config.parallel_tokens > 1 else "--order raster"
    return _CARD.format(
        parallel=config.parallel_tokens,
        parameters=pipe.transformer.num_parameters() / 1e6,
        side=GRID * CELL,
        tokens=layout.num_tokens,
        passes=config.parallel_tokens + layout.num_tokens // config.parallel_tokens - 1,
        objects=textwrap.fill(f"One of {len(OBJECTS)} objects, by name or index: {', '.join(OBJECTS)}.", LINE),
        sampling=", ".join(f"{name} {value}" for name, value in SAMPLING.items()),
        command=f"python -m sjd_pipelines.training.par train --folder RUN {order}{course_options(course)}",
        phases=phases_told(course),
        pictures=f"{done:,} pictures" if done == whole else f"{done:,} of these {whole:,} pictures",
        minutes=training["seconds"] / 60,
        device=" on a GPU" if course["device"] != "cpu" else " on one CPU thread",
        n=scores["drawn"]["n"],
        object=scores["drawn"]["object"],
        true=scores["true tokens"]["object"],
        match=MATCH,
    )
