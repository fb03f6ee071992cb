"""What a draft reviser learns from: passes of a pipeline over its own drafts, each beside the pass before it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from ..companions.reviser import CanvasMemory, neighbours, places_around, tokens_at
from ..decoding import PositionNoise, Sampling, TargetPass, decode
from ..emoji.captions import caption
from ..emoji.scenes import scene_stream
from ..pipelines import SJDAutoRegressivePipeline
from ..schedulers import SeededJacobiScheduler
from .batches import MIXED
from .drawings import GUIDANCES

WINDOW, NEAR = 32, 20  # drafts of one pass; places after its front that examples come from
BATCH, CAPACITY, REUSE = 8, 32, 60  # pictures in a drawing, drawings kept, batches before the next is drawn


@dataclass
class Examples:
    """Places whose neighbours have changed between two passes; C = 2 copies, the unconditional one last.

    Attributes:
        hidden: `[C, M, 2, D]` float16, the target's states at the place and the one before it, in the earlier pass.
        result: `[C, M, D]` float16, its state at the place in the later pass.
        seen: `[M, 6]` int64, the neighbours in the earlier pass, 0 in front of the picture.
        tokens: `[M, 6]` int64, those in the later pass.
        distance: `[M]` int64, how far the place is after the front of the later pass.
    """

    hidden: torch.Tensor
    result: torch.Tensor
    seen: torch.Tensor
    tokens: torch.Tensor
    distance: torch.Tensor

    def __len__(self) -> int:
        return len(self.distance)

    def take(self, index: torch.Tensor) -> Examples:
        """Those at `index` `[K]`."""
        return Examples(
            self.hidden[:, index], self.result[:, index], self.seen[index], self.tokens[index], self.distance[index]
        )


class PassRecorder:
    """Looks on at a run, and keeps what each pass of the target shows about the one before it.

    Args:
        columns: tokens per row of the picture, row ends included.
        batch_size: B.
        length: canvas positions.
        device: of the target.
    """

    def __init__(self, columns: int, batch_size: int, length: int, device: torch.device | str = "cpu"):
        self.neighbours, self.tokens = neighbours(columns, device), CanvasMemory(batch_size, length, device)
        self.kept: list[Examples] = []
        self.before: TargetPass | None = None

    def observe(self, seen: TargetPass) -> None:
        """See `Companion`."""
        earlier = self.tokens.seen.clone()
        self.tokens.observe(seen.query)
        if self.before is not None:
            self.kept.append(self._compare(seen, earlier))
        self.before = seen

    def _compare(self, now: TargetPass, earlier: torch.Tensor) -> Examples:
        old, new = self.before.query.predicts, now.query.predicts
        distance = new - new[:, :1]
        around = places_around(new, self.neighbours)
        seen, tokens = (tokens_at(canvas, around) for canvas in (earlier, self.tokens.seen))
        moved = new[:, :1] > old[:, :1]  # a complete row stands still
        row, slot = ((seen != tokens).any(-1) & (new <= old[:, -1:]) & (distance < NEAR) & moved).nonzero(
            as_tuple=True
        )
        before = new[row, slot] - old[row, 0]
        pair = torch.stack([before, before - 1], -1)  # [M, 2]
        before_hidden, hidden = (one.hidden.unflatten(0, (-1, len(new))) for one in (self.before, now))
        return Examples(
            before_hidden[:, row[:, None], pair].half(),
            hidden[:, row, slot].half(),
            seen[row, slot],
            tokens[row, slot],
            distance[row, slot],
        )


@dataclass
class Drawn:
    """Examples from some pictures, and the strength of guidance they were drawn with."""

    examples: Examples
    guidance_scale: float


@torch.no_grad()
def draw(
    pipe: SJDAutoRegressivePipeline, captions: list[str], seeds: list[int], guidance_scale: float, top_p: float
) -> Drawn:
    """Draw pictures by seeded Jacobi decoding and keep examples of all passes.

    Args:
        pipe: the target.
        captions: B of them.
        seeds: B of them.
        guidance_scale: more than 1.
        top_p: the nucleus that tokens are drawn from.
    """
    scheduler, layout = SeededJacobiScheduler(window=WINDOW), pipe.image_layout(None, None)
    encoded = pipe.encode_prompt(captions, None, True, 1, layout)
    target = pipe.prepare_target(encoded, layout, Sampling(guidance_scale, top_p=top_p), scheduler.margin(layout))
    recorder = PassRecorder(layout.width, len(captions), target.length, target.device)
    noise = PositionNoise(seeds, target.device, target.length)
    decode(target, scheduler, noise, {"recorder": recorder})
    parts = [[getattr(kept, field.name) for kept in recorder.kept] for field in fields(Examples)]
    joined = [torch.cat(part, 0 if part[0].dtype == torch.int64 else 1) for part in parts]
    return Drawn(Examples(*joined), guidance_scale)


class Revisions:
    """An endless stream of examples from a pipeline's own drawings, each drawing used a few times.

    Args:
        pipe: draws.
        rng: of captions, strengths and seeds.
        batch_size: pictures in a drawing.
    """

    def __init__(self, pipe: SJDAutoRegressivePipeline, rng: np.random.Generator, batch_size: int = BATCH):
        self.pipe, self.rng, self.batch_size = pipe, rng, batch_size
        self.scenes = scene_stream(rng, MIXED)
        self.kept: list[Drawn] = []
        self.shown, self.images = 0, 0

    def next(self, count: int) -> Drawn:
        """At most `count` examples of one drawing, chosen by chance."""
        if self.shown % REUSE == 0:
            self.kept = [*self.kept, self.draw(float(self.rng.choice(GUIDANCES)))][-CAPACITY:]
        self.shown += 1
        drawn = self.kept[self.rng.integers(len(self.kept))]
        size = len(drawn.examples)
        chosen = torch.from_numpy(self.rng.choice(size, min(size, count), replace=False))
        return Drawn(drawn.examples.take(chosen), drawn.guidance_scale)

    def draw(self, guidance_scale: float) -> Drawn:
        """A new drawing."""
        self.images += self.batch_size
        captions = [caption(next(self.scenes), self.rng) for _ in range(self.batch_size)]
        seeds = [int(seed) for seed in self.rng.integers(2**62, size=self.batch_size)]
        return draw(self.pipe, captions, seeds, guidance_scale, float(self.rng.choice((0.9, 1.0))))
