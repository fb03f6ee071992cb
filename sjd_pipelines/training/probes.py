"""What a run is watched by: the loss of fixed held-out scenes, and what a wrong caption costs there."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration

from ..emoji.captions import caption, encode_caption
from ..emoji.codes import scene_tokens
from ..emoji.glyphs import OBJECTS
from ..emoji.scenes import BACKGROUNDS, RELATIONS, Scene, place, sample_scene, sample_shading
from .architecture import image_logits

PROBES = ("single", "count", *RELATIONS)
SEED = 7


def probe(name: str, count: int, seed: int = SEED) -> dict[str, torch.Tensor]:
    """Fixed held-out rows of one kind, with captions that differ from the right one in a single respect.

    Args:
        name: one of `PROBES`; a relation stands for scenes of that relation.
        count: rows.

    Returns:
        `tokens` `[count, 256]`, `truth` `[count, P]`, and wrong prompts of the same shape: `object` and `colour` for
        single objects, `count` for counts, the relation's name (the two objects exchanged) for relations.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list] = defaultdict(list)
    kind = "relation" if name in RELATIONS else name
    while len(rows["tokens"]) < count:
        scene = sample_scene(rng, kind, held_out=True)
        if kind == "relation" and scene.relation != name:
            continue
        rows["tokens"].append(scene_tokens(scene, place(scene, rng), sample_shading(rng)))
        rows["truth"].append(scene)
        for wrong, altered in _wrong_scenes(scene, rng).items():
            rows[wrong].append(altered)
    tensors = {"tokens": torch.from_numpy(np.stack(rows.pop("tokens")))}
    for column, scenes in rows.items():
        tensors[column] = torch.tensor([encode_caption(caption(scene, rng, plain=True)) for scene in scenes])
    return tensors


def _wrong_scenes(scene: Scene, rng: np.random.Generator) -> dict[str, Scene]:
    objects = scene.objects
    if scene.kind == "single":
        return {
            "object": replace(scene, objects=(_another(OBJECTS, objects[0], rng),)),
            "colour": replace(scene, background=_another(BACKGROUNDS, scene.background, rng)),
        }
    if scene.kind == "count":
        return {"count": replace(scene, objects=objects[:1] * (5 - len(objects)))}
    return {scene.relation: replace(scene, objects=objects[::-1])}


def _another(names: tuple[str, ...], name: str, rng: np.random.Generator) -> str:
    return names[(names.index(name) + int(rng.integers(1, len(names)))) % len(names)]


def token_loss(model: JanusForConditionalGeneration, prompt: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of every image token: `[B, 256]` float32 nats."""
    with torch.autocast(tokens.device.type, torch.bfloat16):
        logits = image_logits(model, prompt, tokens)
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)


@torch.no_grad()
def run_probes(model: JanusForConditionalGeneration, probes: dict[str, dict[str, torch.Tensor]]) -> dict[str, float]:
    """Loss by probe (nats per token) and caption gaps (nats per image, wrong minus right caption)."""
    values: dict[str, float] = {}
    for name, rows in probes.items():
        tokens = rows["tokens"]
        losses = {
            column: token_loss(model, prompt, tokens).sum(1) for column, prompt in rows.items() if column != "tokens"
        }
        right = losses.pop("truth")
        values[f"{name}_loss"] = float(right.mean()) / tokens.shape[1]
        for wrong, loss in losses.items():
            values[f"{wrong}_gap"] = float((loss - right).mean())
    return values
