"""The recipe of `emoji-fast`: what `emoji-janus` draws, in fewer passes, by consistency distillation.

    PYTHON -m sjd_pipelines.training fast-prompts --file prompts.jsonl --count 6000
    PYTHON -m sjd_pipelines.distillation trajectories --prompts prompts.jsonl --folder drawn \\
        --judge sjd_pipelines.training.emoji_fast:true_tokens
    PYTHON -m sjd_pipelines.distillation train --trajectories drawn --folder student
    PYTHON -m sjd_pipelines.distillation export --folder student --target adapter --adapter
    PYTHON -m sjd_pipelines.training reviser --model adapter --folder reviser --start .../emoji-janus/reviser
    PYTHON -m sjd_pipelines.training add-reviser --folder reviser --target adapter
    PYTHON -m sjd_pipelines.training fast-evaluate --models adapter --folder figures
    PYTHON -m sjd_pipelines.training fast-export --adapter adapter --runs student --options= --figures figures

What it must hold was set before any was trained:

- `FEWER`, `FEWER_GREEDY`: times fewer passes than its teacher with the same decoder, at the defaults and at
  temperature 0.
- `KL_BOUND`: its law may be so far from the teacher's, over the teacher's pictures at the default guidance.
- `ENTROPY_SHARE`: of the teacher's mean entropy per token it keeps at least so much.
- `JUDGE_POINTS`: it is right about as often as the teacher, in percentage points, for each kind of caption.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..emoji.captions import caption
from ..emoji.codes import scene_tokens
from ..emoji.judge import score_picture
from ..emoji.scenes import KINDS, Scene, place, sample_shading, scene_stream
from ..learning.runs import write_atomically
from ..ranges import Range
from .batches import MIXED

FEWER, FEWER_GREEDY = 1.3, 2.0
KL_BOUND = 0.03  # nats a token
ENTROPY_SHARE = 0.95
JUDGE_POINTS = 2.0


def write_prompts(
    file: str | Path, count: int, seed: int = 0, mix: Sequence[float] = MIXED, plain: bool = False
) -> Path:
    """Captions of scenes that are not held out, with the scene, a JSON object on each line.

    Args:
        file: where to.
        count: of the captions.
        seed: of chance.
        mix: share of each of `KINDS`.
        plain: the main phrasing alone.

    Raises:
        ValueError: the shares don't sum to 1, or there is not one for each kind; or there are to be no captions.
    """
    Range(1, whole=True).check("count", count)
    if len(mix) != len(KINDS) or min(mix) < 0 or not math.isclose(sum(mix), 1):
        raise ValueError(f"mix must be {len(KINDS)} shares with the sum 1, got {' '.join(map(str, mix))}.")
    rng = np.random.default_rng(seed)
    scenes = scene_stream(rng, tuple(mix))
    entries = [
        {"prompt": caption(scene, rng, plain), "scene": asdict(scene)} for scene, _ in zip(scenes, range(count))
    ]
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    write_atomically(Path(file), lambda path: path.write_text(text, encoding="utf-8"))
    return Path(file)


def true_tokens(entries: Sequence[dict[str, Any]], pictures: torch.Tensor) -> list[torch.Tensor | None]:
    """The tokens of a true picture where one doesn't show its scene, else None; a `Judge` of trajectories.

    Args:
        entries: as `write_prompts` wrote them.
        pictures: `[B, 3, H, W]` in [0, 1].

    Raises:
        ValueError: a prompt comes without its scene.
    """
    labels = []
    for entry, picture in zip(entries, pictures.cpu()):
        if "scene" not in entry:
            raise ValueError(f"{entry['prompt']!r} has no `scene` to judge by; write prompts with fast-prompts.")
        told = entry["scene"]
        scene = Scene(tuple(told["objects"]), told["background"], told["relation"])
        right = score_picture(picture, scene)["all"]
        labels.append(None if right else _true_picture(scene, zlib.crc32(entry["prompt"].encode())))
    return labels


def _true_picture(scene: Scene, seed: int) -> torch.Tensor:
    """`[256]` int64."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(scene_tokens(scene, place(scene, rng), sample_shading(rng)))
