"""Endless training batches: scenes drawn on the fly, grouped by caption length so that no padding mask is needed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch

from ..emoji.captions import caption, encode_caption
from ..emoji.codes import scene_tokens
from ..emoji.glyphs import OBJECTS
from ..emoji.scenes import BACKGROUNDS, Scene, place, sample_light, sample_scene, sample_shading, scene_stream
from .architecture import unconditional_prompt

SINGLES_ONLY = (1.0, 0.0, 0.0)
MIXED = (0.45, 0.25, 0.30)  # shares of single objects, counts and relations


def example(scene: Scene, rng: np.random.Generator) -> tuple[list[int], np.ndarray, np.ndarray]:
    """One caption (prompt ids) with one picture of the scene: image tokens `[256]` and noise-free light `[256]`."""
    light = sample_light(rng)
    tokens = scene_tokens(scene, place(scene, rng), sample_shading(rng, light))
    return encode_caption(caption(scene, rng)), tokens, light.reshape(-1)


class BatchStream:
    """Batches of equal caption length.

    Causal attention without a mask is a tenth faster on a CPU, and with rotary positions a left-padded row
    gives the same logits, so nothing is lost by never padding in training.

    Args:
        batch_size: rows per batch.
        seed: of the scenes, captions and dropped captions.
        caption_dropout: share of rows whose prompt becomes the unconditional one.
    """

    def __init__(self, batch_size: int, seed: int, caption_dropout: float = 0.1) -> None:
        self.batch_size, self.caption_dropout = batch_size, caption_dropout
        self.rng = np.random.default_rng(seed)
        self.waiting: dict[int, list[tuple[list[int], np.ndarray, np.ndarray]]] = defaultdict(list)

    def next(self, mix: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns prompts `[B, P]` and image tokens `[B, 256]`, both int64, and the light `[B, 256]` float32."""
        for scene in scene_stream(self.rng, mix):
            row = example(scene, self.rng)
            queue = self.waiting[len(row[0])]
            queue.append(row)
            if len(queue) == self.batch_size:
                break
        prompts, pictures, lights = zip(*queue)
        queue.clear()
        prompt = torch.tensor(prompts)
        dropped = torch.from_numpy(self.rng.random(self.batch_size) < self.caption_dropout)
        prompt = torch.where(dropped[:, None], unconditional_prompt(prompt), prompt)
        return prompt, torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(lights))


def probe(kind: str, count: int, seed: int) -> dict[str, torch.Tensor]:
    """Fixed held-out rows of one kind, with captions that differ from the right one in a single respect.

    Returns:
        `tokens` `[count, 256]`, `right` `[count, P]`, and wrong prompts of the same shape: `object` and `colour` for
        single objects, `count` for counts, `relation` (the two objects exchanged) for relations.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list] = defaultdict(list)
    while len(rows["tokens"]) < count:
        scene = sample_scene(rng, kind, held_out=True)
        if scene.relation in ("above", "below"):
            continue  # one word shorter than "left of"; rows of one length need no padding
        rows["tokens"].append(scene_tokens(scene, place(scene, rng), sample_shading(rng)))
        rows["right"].append(scene)
        objects, colour = scene.objects, scene.background
        if kind == "single":
            rows["object"].append(replace(scene, objects=(_another(OBJECTS, objects[0], rng),)))
            rows["colour"].append(replace(scene, background=_another(BACKGROUNDS, colour, rng)))
        elif kind == "count":
            rows["count"].append(replace(scene, objects=objects[:1] * (5 - len(objects))))
        else:
            rows["relation"].append(replace(scene, objects=objects[::-1]))
    tensors = {"tokens": torch.from_numpy(np.stack(rows.pop("tokens")))}
    for name, scenes in rows.items():
        tensors[name] = torch.tensor([encode_caption(caption(scene, rng, plain=True)) for scene in scenes])
    return tensors


def _another(names: tuple[str, ...], name: str, rng: np.random.Generator) -> str:
    return names[(names.index(name) + int(rng.integers(1, len(names)))) % len(names)]
