"""Pictures that a model draws itself, with the drafts it went through: what a draft model meets at work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..emoji.captions import caption
from ..emoji.scenes import scene_stream
from ..pipelines import SJDAutoRegressivePipeline
from ..schedulers import SeededJacobiScheduler
from .batches import MIXED

GUIDANCES = (1.5, 1.5, 2.0, 3.0, 3.0)  # strengths that pictures are drawn with, one after chance
WINDOW = 32  # drafts of one pass
BATCH, CAPACITY, REUSE = 8, 32, 16  # pictures in a drawing, drawings kept, times each is shown


@dataclass
class Drawing:
    """How some pictures came about.

    Attributes:
        captions: B of them.
        guidance_scale: strength of guidance.
        canvas: `[T, B, N]` int64: committed tokens and drafts after every pass.
        committed: `[T, B]` int64.
    """

    captions: list[str]
    guidance_scale: float
    canvas: torch.Tensor
    committed: torch.Tensor


class Drawings:
    """An endless stream of a pipeline's own drawings; each is shown a few times.

    Args:
        pipe: draws, by Jacobi decoding.
        rng: of captions, strengths and seeds.
        batch_size: pictures in a drawing.
    """

    def __init__(self, pipe: SJDAutoRegressivePipeline, rng: np.random.Generator, batch_size: int = BATCH):
        self.pipe, self.rng, self.batch_size = pipe, rng, batch_size
        self.scenes = scene_stream(rng, MIXED)
        self.kept: list[Drawing] = []
        self.shown = 0

    def next(self) -> Drawing:
        """A new drawing, or one of those kept."""
        if self.shown >= REUSE * len(self.kept):
            self.kept = [*self.kept, self._draw()][-CAPACITY:]
            self.shown = 0 if len(self.kept) == CAPACITY else self.shown
        self.shown += 1
        return self.kept[self.rng.integers(len(self.kept))]

    def _draw(self) -> Drawing:
        captions = [caption(next(self.scenes), self.rng) for _ in range(self.batch_size)]
        guidance_scale = float(self.rng.choice(GUIDANCES))
        seeds = [torch.Generator().manual_seed(int(self.rng.integers(2**62))) for _ in captions]
        canvas, committed = [], []

        def record(pipe, index, count, tensors):
            canvas.append(tensors["canvas"])
            committed.append(tensors["committed"])

        self.pipe(
            captions,
            guidance_scale=guidance_scale,
            temperature=1.0,
            top_k=0,
            generator=seeds,
            output_type="latent",
            callback_on_step_end=record,
            scheduler=SeededJacobiScheduler(window=WINDOW),
        )
        return Drawing(captions, guidance_scale, torch.stack(canvas), torch.stack(committed))
