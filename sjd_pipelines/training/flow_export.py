"""Scores a trained flow, and writes it as the folder of a bundled model."""

from __future__ import annotations

import textwrap
from pathlib import Path

import torch
from diffusers.utils import numpy_to_pil
from PIL import Image

from ..bundled import bundled_folder
from ..emoji.flow_judge import MATCH, score_pictures
from ..emoji.flow_world import SIDE, PictureStream
from ..emoji.glyphs import OBJECTS
from ..flows import FlowSolver, FrontierFlowSolver, SequentialFlowSolver
from ..learning.runs import write_atomically
from ..pipelines.sheets import contact_sheet
from ..pipelines.tarflow import TarFlowPipeline
from .bundle import course_options, kept_results, phases_told, write_bundle
from .course import training_facts
from .flow_train import FILES, load_trained

NAME = "emoji-flow"
SAMPLING = {"guidance_scale": 1.0, "annealed_guidance": True, "denoise_strength": 1.0}
BATCH = 25  # pictures drawn at once
LINE = 119  # characters of the card
SHEET_SCALE = 3  # of the pictures on a sheet


def trained_pipeline(folder: str | Path, solver: FlowSolver | None = None) -> TarFlowPipeline:
    """The pipeline around a training run, as `export` writes it."""
    pipe = TarFlowPipeline(load_trained(folder), solver or FrontierFlowSolver(), dict(enumerate(OBJECTS)), SAMPLING)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def evaluate_flow(
    folder: str | Path,
    count: int = 200,
    guidance_scale: float | None = None,
    seed: int = 0,
    threads: int = 1,
    sequential: bool = False,
    sheet: str | Path | None = None,
) -> dict:
    """Draw every class in turn, and judge the pictures.

    Args:
        folder: of the training run.
        count: pictures.
        guidance_scale: None is the default of the exported model.
        seed: of the first picture.
        threads: of the CPU.
        sequential: draw sequentially, not with the exact frontier solver.
        sheet: where to write the first picture of every class, if anywhere.

    Returns:
        `scores` of drawn and of rendered pictures, the sampling settings, and how far the training had come.
    """
    torch.set_num_threads(threads)
    pipe = trained_pipeline(folder, SequentialFlowSolver() if sequential else None)
    labels = torch.arange(count) % len(OBJECTS)
    pictures = []
    for batch in torch.arange(count).split(BATCH):
        seeds = [seed + index for index in batch.tolist()]
        drawn = pipe(labels[batch].tolist(), guidance_scale=guidance_scale, seeds=seeds, output_type="pt").images
        pictures.append(drawn)
    rendered = (PictureStream(count, seed).render(labels) + 1) / 2
    if sheet is not None:
        shown = numpy_to_pil(torch.cat(pictures)[: len(OBJECTS)].movedim(1, -1).numpy())
        shown = [picture.resize((SHEET_SCALE * SIDE,) * 2, Image.Resampling.NEAREST) for picture in shown]
        write_atomically(Path(sheet), lambda path: contact_sheet(shown, 8).save(path, format="PNG"))
    last = training_facts(folder, FILES)
    used = pipe.sampling_defaults() | ({} if guidance_scale is None else {"guidance_scale": guidance_scale})
    return {
        "scores": {
            "drawn": score_pictures(torch.cat(pictures), labels),
            "rendered": score_pictures(rendered, labels),
        },
        "sampling": used | {"seed": seed},
        "training": {name: last[name] for name in ("pictures", "step", "seconds", "probe", "course")},
    }


def export_flow(folder: str | Path, target: str | Path | None = None, results: dict | None = None) -> Path:
    """Write a run as a pipeline's folder, replacing `target` only when all files are there.

    Args:
        folder: of the training run.
        target: None is the folder of the bundled model.
        results: scores for `results.json` and the model card; kept from `target` if left out.

    Raises:
        FileNotFoundError: there are no scores.
    """
    target = bundled_folder(NAME) if target is None else Path(target)
    results, pipe = kept_results(target) if results is None else results, trained_pipeline(folder)
    return write_bundle(target, pipe.save_pretrained, results, model_card(results, pipe))


_CARD = """---
license: other
license_name: see-licence-section
pipeline_tag: unconditional-image-generation
tags: [tarflow, normalizing-flow, tiny]
---

# Emoji Flow

A TarFlow in miniature (Zhai et al. 2024, arXiv 2412.06329): a normalizing flow of {blocks} blocks over {tokens}
patches, {parameters:.2f} million parameters, {side} x {side} pixels. It draws one emoji on a pastel ground, and exists
so that every solver of this package can be tried, tested and measured on a CPU.

## What it draws

{objects}

It knows nothing else: no other object, no size, no place, no colour by name.

## Use

```python
from sjd_pipelines import TarFlowPipeline

pipe = TarFlowPipeline.from_pretrained("emoji-flow")
pipe("penguin").images[0].save("penguin.png")
```

Defaults of a call: {sampling}.

## How it was made

`{command}`
makes it from nothing but the glyph sheet: pictures are rendered while it trains, with noise of {noise:g} (standard
deviation, pictures in [-1, 1]) on them and a tenth of the classes left out. Muon and AdamW, averaged weights; phases,
in pictures:
{phases}.

## Measured

{measured}

The judge (`sjd_pipelines/emoji/flow_judge.py`) lays every glyph at every size and place on the picture's ground and
reads the best, if it explains {match:.0%} of the picture; it knows nothing of the model.

## Licence

The weights and the pictures they draw derive from the glyphs of Noto Color Emoji, whose font is licensed under the SIL
Open Font License 1.1 (Copyright Google Inc.). The code is licensed as the package is.
"""


def model_card(results: dict, pipe: TarFlowPipeline) -> str:
    """The card, filled with what was measured."""
    config, course = pipe.transformer.config, results["training"]["course"]
    return _CARD.format(
        blocks=config.num_blocks,
        tokens=pipe.transformer.num_tokens,
        parameters=pipe.transformer.num_parameters() / 1e6,
        side=SIDE,
        objects=textwrap.fill(f"One of {len(OBJECTS)} objects, by name or index: {', '.join(OBJECTS)}.", LINE),
        sampling=", ".join(f"{name} {value}" for name, value in SAMPLING.items()),
        noise=config.noise_std,
        command=f"python -m sjd_pipelines.training.flow train --folder RUN{course_options(course)}",
        phases=phases_told(course),
        measured=_measured(results),
        match=MATCH,
    )


def _measured(results: dict) -> str:
    training, scores = results["training"], results["scores"]
    lines = [
        f"Trained on {training['pictures']:,} pictures in {training['seconds'] / 60:.0f} minutes"
        f"{' on a GPU' if training['course']['device'] != 'cpu' else ''}. {scores['drawn']['n']} pictures at the "
        "defaults, every class in turn:",
        "",
        "| pictures | n | right object | none read | explained |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {score['n']} | {score['object']:.1%} | {score['unread']:.1%} | {score['explained']:.1%} |"
            for name, score in scores.items()
        ),
    ]
    return "\n".join(lines)
