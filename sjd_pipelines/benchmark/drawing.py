"""One batch of pictures, drawn and timed: what every measurement on a real model is made of."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..emoji.judge import held_out_scenes, score_picture
from ..emoji.scenes import KINDS, Scene
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.pictures import render_tokens
from ..schedulers import DecodingScheduler
from .library import library_tokens
from .machine import wait_for


@dataclass(frozen=True)
class Run:
    """One batch.

    Attributes:
        seconds: from prompt to tokens, of the whole batch.
        tokens: `[B, rows * columns]` int64.
        passes: forward passes of each picture.
        committed: per picture, the tokens each of its passes committed.
        acceptance_map: `[B, rows, width]` int32, the pass that committed each token; None for the library.
        decode_seconds: of the decode loop alone; None for the library.
    """

    seconds: float
    tokens: torch.Tensor
    passes: list[int]
    committed: list[list[int]]
    acceptance_map: torch.Tensor | None = None
    decode_seconds: float | None = None


def draw(
    pipe: SJDAutoRegressivePipeline,
    scheduler: DecodingScheduler | None,
    prompts: Sequence[str],
    seed: int,
    sampling: dict[str, float],
    **options: Any,
) -> Run:
    """Draw one picture per prompt, picture i from seed `seed + i`.

    Args:
        pipe: any family.
        scheduler: None is the library's own `generate` (Janus).
        prompts: B texts.
        seed: of the first picture.
        sampling: `guidance_scale`, `temperature`, `top_k`, `top_p`; all four for the library.
        **options: further arguments of the pipeline's call.
    """
    prompts = list(prompts)
    wait_for(pipe.device)
    if scheduler is None:
        begin = time.perf_counter()
        tokens = library_tokens(pipe, prompts, seed, **sampling)
        wait_for(pipe.device)
        ones = [[1] * tokens.shape[1] for _ in prompts]
        return Run(time.perf_counter() - begin, tokens, [tokens.shape[1]] * len(prompts), ones)
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(prompts))]
    begin = time.perf_counter()
    output = pipe(prompts, generator=generators, output_type="latent", scheduler=scheduler, **sampling, **options)
    wait_for(pipe.device)
    seconds = time.perf_counter() - begin
    statistics = output.statistics
    return Run(
        seconds,
        output.tokens,
        statistics.forward_passes,
        statistics.committed_per_pass,
        statistics.acceptance_map,
        statistics.seconds["decode"],
    )


def score_run(pipe: SJDAutoRegressivePipeline, run: Run, scenes: Sequence[Any]) -> list[dict[str, bool]]:
    """What the judge says of each picture of a run, see `score_picture`."""
    return [score_picture(picture, scene) for picture, scene in zip(render_tokens(pipe, run.tokens), scenes)]


def benchmark_scenes(pipe: SJDAutoRegressivePipeline, count: int, seed: int = 0) -> list[tuple[str, Any]]:
    """Prompts with their scenes, all kinds in turn."""
    kinds = prompt_kinds(pipe)
    per_kind = -(-count // len(kinds))
    scenes = [prompts_of_kind(pipe, per_kind, kind, seed) for kind in kinds]
    return [scene for group in zip(*scenes) for scene in group][:count]


def prompt_kinds(pipe: SJDAutoRegressivePipeline) -> tuple[str, ...]:
    """What a model can be asked for: `single` where its prompts are classes."""
    return KINDS[:1] if pipe.class_count else KINDS


def prompts_of_kind(pipe: SJDAutoRegressivePipeline, count: int, kind: str, seed: int = 0) -> list[tuple[str, Scene]]:
    """Captions of held-out scenes with their truth, or classes in turn from the number `seed` on."""
    if not pipe.class_count:
        return held_out_scenes(count, kind, seed)
    labels = [(seed + index) % pipe.class_count for index in range(count)]
    names = pipe.class_names() or [str(label) for label in range(pipe.class_count)]
    return [(names[label], Scene((names[label],), None)) for label in labels]
