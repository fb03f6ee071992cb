"""Measures students of `emoji-janus` beside it, part by part, into a folder; goes on where it was stopped.

laws      how far a student's laws are from its teacher's, and their entropy
passes    of seeded Jacobi, at the sampling settings in `SAMPLINGS`
revised   the same with each model's own draft reviser
exits     passes, judged pictures and tokens of early exit after so many iterations
pictures  what a judge sees, and how grounds and places are distributed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from ..bundled import DEFAULT
from ..disk import read_object, write_json
from ..distillation.measures import compare_laws
from ..distillation.trajectories import Trajectory
from ..emoji.codes import BACKGROUND_CODES
from ..emoji.glyphs import GRID
from ..emoji.judge import held_out_scenes, score_picture
from ..emoji.scenes import KINDS, LEVELS, Scene
from ..learning.recipe import Count, Recipe, Seed, Threads
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.adapters import base_weights, file_digest
from ..pipelines.loading import find_pipeline
from ..pipelines.pictures import render_tokens
from ..schedulers import (
    AutoregressiveScheduler,
    DecodingScheduler,
    EarlyExitScheduler,
    RevisedJacobiScheduler,
    SeededJacobiScheduler,
)

TEACHER = "teacher"
PARTS = ("laws", "passes", "revised", "exits", "pictures")
SAMPLINGS: dict[str, dict[str, float]] = {
    "defaults": {},
    "guidance 3": {"guidance_scale": 3.0, "temperature": 1.0, "top_p": 1.0},
    "temperature 0": {"temperature": 0.0},
}
SEEDED = {f"window {window}": SeededJacobiScheduler(window=window) for window in (16, 32)}
REVISED = {
    "window 63": RevisedJacobiScheduler(window=63, reach=63, revisions=4),  # 64 slots
    "window 16": RevisedJacobiScheduler(),
}
EXITS = (1, 2, 3, 4, 8)
OTHER = ", other seeds"
QUANTITIES = ("level", "unevenness", "row", "column", "ink")
OTHER_SEEDS = 1_000_000
BATCH, SEQUENTIAL_BATCH = 16, 50  # pictures drawn at once by Jacobi decoding, and sequentially

Figures = dict[str, dict[str, Any]]  # of each model by name


@dataclass
class Evaluation(Recipe):
    """What is measured of which models.

    Attributes:
        folder: for the figures; the same command goes on there.
        models: students: names, folders or hub ids. Each goes by the last part of its name.
        pictures: drawn by each decoder, a third of each kind of caption.
        per_kind: pictures that are judged, of each kind.
        captions_seed: of the captions; what is chosen by looking at figures is chosen with another one.
        only: parts to measure.
        threads: of the CPU.

    Raises:
        ValueError: a number is out of its range; two models go by one name, or one by the teacher's; no such part.
    """

    folder: Path
    models: Sequence[str] = ()
    pictures: Count = 48
    per_kind: Count = 200
    captions_seed: Seed = 47
    only: Sequence[str] = PARTS
    threads: Threads = 1
    pipes: dict[str, SJDAutoRegressivePipeline] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        named = {TEACHER: DEFAULT} | {Path(model).name: model for model in self.models}
        if len(named) <= len(self.models):
            raise ValueError(f"Models must have names of their own, and none that is {TEACHER}: {self.models}.")
        if strange := sorted(set(self.only) - set(PARTS)):
            raise ValueError(f"There is no part {', '.join(strange)}; parts are {', '.join(PARTS)}.")
        self.sources = named

    def run(self) -> None:
        """Measure what is not there yet.

        Raises:
            OSError: there is no such model, or figures in the folder are damaged.
            ValueError: other weights or settings were measured.
        """
        for source in self.sources.values():
            find_pipeline(source, {})  # before anything is measured
        torch.set_num_threads(self.threads)
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            if part in self.only:
                self._measure(part)

    def pipe(self, name: str) -> SJDAutoRegressivePipeline:
        """The model that goes by a name."""
        if name not in self.pipes:
            self.pipes[name] = SJDAutoRegressivePipeline.from_pretrained(self.sources[name])
            self.pipes[name].set_progress_bar_config(disable=True)
        return self.pipes[name]

    def _measure(self, part: str) -> None:
        file = self.folder / f"{part}.json"
        kept = read_figures(file)
        settings = {"pictures": self.pictures, "per_kind": self.per_kind, "captions_seed": self.captions_seed}
        if kept.setdefault("settings", settings) != settings:
            raise ValueError(f"{file} was measured with {kept['settings']}; choose another folder.")
        for name in self.sources:
            weights = _fingerprint(self.sources[name], part == "revised")
            known = kept.setdefault("weights", {}).setdefault(name, weights)
            if known != weights:
                raise ValueError(f"{file} has figures of other weights of {name}; choose another folder.")
            figures = kept.setdefault("figures", {}).setdefault(name, {})
            for key, task in self._tasks(part, name):
                if key not in figures:
                    figures[key] = task()
                    write_json(file, kept, None)
                    print(part, name, key, _shown(figures[key]), flush=True)

    def _tasks(self, part: str, name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
        """What is measured of one model, by name."""
        if part == "laws" and name != TEACHER:
            yield "defaults", partial(self._laws, name)
        elif part in ("passes", "revised"):
            for title, scheduler in (SEEDED if part == "passes" else REVISED).items():
                for sampling in SAMPLINGS:
                    yield f"{title}, {sampling}", partial(self._passes, name, scheduler, sampling)
        elif part == "exits":
            for iterations in EXITS:
                yield str(iterations), partial(self._exit, name, iterations)
        elif part == "pictures":
            for index, kind in enumerate(KINDS):
                yield kind, partial(self._judged, name, kind, index * self.per_kind)
                if name == TEACHER:
                    yield kind + OTHER, partial(self._judged, name, kind, OTHER_SEEDS + index * self.per_kind)

    @cached_property
    def scenes(self) -> list[tuple[str, Scene]]:
        """Captions of all kinds with their truth."""
        each = -(-self.pictures // len(KINDS))
        return [one for kind in KINDS for one in held_out_scenes(each, kind, self.captions_seed)][: self.pictures]

    @cached_property
    def exact(self) -> dict[str, torch.Tensor]:
        """By model, the tokens of the pictures as it draws them exactly, as far as somebody has asked."""
        return {}

    def _exact(self, name: str) -> torch.Tensor:
        if name not in self.exact:
            captions = [caption for caption, _ in self.scenes]
            self.exact[name], _ = draw(self.pipe(name), captions, 0, AutoregressiveScheduler(), {})
        return self.exact[name]

    def _laws(self, name: str) -> dict[str, float]:
        teacher, final = self.pipe(TEACHER), self._exact(TEACHER)
        values: list[dict[str, float]] = []
        for start in range(0, self.pictures, BATCH):
            captions = [caption for caption, _ in self.scenes[start : start + BATCH]]
            tokens, seeds = final[start : start + BATCH], list(range(start, start + len(captions)))
            none = torch.zeros(0, len(captions), 1, dtype=torch.int64)
            drawn = Trajectory(captions, seeds, teacher.prepare_sampling(), tokens, tokens, none[..., 0], none)
            values += [compare_laws(teacher, self.pipe(name), drawn)] * len(captions)
        return {key: sum(value[key] for value in values) / len(values) for key in values[0]}

    def _passes(self, name: str, scheduler: DecodingScheduler, sampling: str) -> list[int]:
        captions = [caption for caption, _ in self.scenes]
        return draw(self.pipe(name), captions, 0, scheduler, SAMPLINGS[sampling])[1]

    def _exit(self, name: str, iterations: int) -> dict[str, float]:
        pipe, captions = self.pipe(name), [caption for caption, _ in self.scenes]
        tokens, passes = draw(pipe, captions, 0, EarlyExitScheduler(exit_after=iterations), {})
        return {
            "passes": sum(passes) / len(passes),
            "right": sum(judged(pipe, tokens, [scene for _, scene in self.scenes])) / len(passes),
            "agreement": float((tokens == self._exact(name)).float().mean()),
        }

    def _judged(self, name: str, kind: str, seed: int) -> dict[str, list[float]]:
        captions, scenes = zip(*held_out_scenes(self.per_kind, kind, self.captions_seed))
        pipe = self.pipe(name)
        tokens, _ = draw(pipe, captions, seed, AutoregressiveScheduler(), {}, SEQUENTIAL_BATCH)
        return {"right": judged(pipe, tokens, scenes)} | {
            quantity: [round(value, 4) for value in values.tolist()]
            for quantity, values in zip(QUANTITIES, grounds_and_places(tokens))
        }


def draw(
    pipe: SJDAutoRegressivePipeline,
    captions: Sequence[str],
    seed: int,
    scheduler: DecodingScheduler,
    sampling: dict[str, float],
    batch: int = BATCH,
) -> tuple[torch.Tensor, list[int]]:
    """A picture of each caption, picture i with seed `seed + i`: tokens `[B, 256]`, and the passes of each."""
    tokens, passes = [], []
    for start in range(0, len(captions), batch):
        some = list(captions[start : start + batch])
        seeds = list(range(seed + start, seed + start + len(some)))
        output = pipe(some, seeds=seeds, scheduler=scheduler, output_type="latent", **sampling)
        tokens.append(output.tokens.cpu())
        passes += output.statistics.forward_passes
    return torch.cat(tokens), passes


def judged(pipe: SJDAutoRegressivePipeline, tokens: torch.Tensor, scenes: Sequence[Scene]) -> list[int]:
    """Whether each picture shows its scene, 1 or 0."""
    with torch.no_grad():
        pictures = (render_tokens(pipe, one[None])[0] for one in tokens)
        return [int(score_picture(picture, scene)["all"]) for picture, scene in zip(pictures, scenes)]


def grounds_and_places(tokens: torch.Tensor) -> torch.Tensor:
    """What is drawn where, from tokens alone: `[B, 256]` -> `[5, B]`, the `QUANTITIES` of each picture.

    Mean brightness level of the ground; how uneven it is, as the standard deviation of the levels; mean row and column
    of the cells with a glyph; share of these. A picture without any has its glyph in the middle.
    """
    ground = tokens < BACKGROUND_CODES
    levels = torch.where(ground, tokens % LEVELS, 0).double()
    count = ground.sum(1).clamp(min=1)
    mean = levels.sum(1) / count
    deviation = torch.where(ground, levels - mean[:, None], 0.0)
    glyphs = (~ground).double()
    inked = glyphs.sum(1)
    cells = torch.arange(tokens.shape[1])
    places = [
        torch.where(inked > 0, (glyphs * place).sum(1) / inked.clamp(min=1), (GRID - 1) / 2)
        for place in (cells // GRID, cells % GRID)
    ]
    return torch.stack([mean, (deviation.square().sum(1) / count).sqrt(), *places, glyphs.mean(1)])


def read_figures(file: Path) -> dict[str, Any]:
    """What is kept of a part; nothing where there is no file. Raises `OSError` if it is damaged."""
    kept = read_object(file) if file.exists() else {}
    parts = [kept.get(name, {}) for name in ("settings", "weights", "figures")]
    models = [one for part in parts[1:] if isinstance(part, dict) for one in part.values()]
    if not all(isinstance(one, dict) for one in (*parts, *models)):
        raise OSError(f"{file} is not as fast-evaluate writes it; remove it, or choose another folder.")
    return kept


def _fingerprint(model: str, companions: bool) -> dict[str, str]:
    """Digests of the weights in a model's folder."""
    folder, _ = find_pipeline(model, {})
    files = sorted(folder.rglob("*.safetensors")) if companions else base_weights(folder)
    return {file.relative_to(folder).as_posix(): file_digest(file)[:16] for file in files}


def _shown(value: Any) -> str:
    """A figure in a few characters."""
    if isinstance(value, list):
        return f"{sum(value) / len(value):.2f}"
    return "  ".join(f"{key} {_shown(one) if isinstance(one, list) else round(one, 4)}" for key, one in value.items())
