"""Training batches: scenes drawn on the fly, one caption length per batch so that no padding mask is needed.

A batch is a function of seed and index alone, so a run goes on exactly where it stopped, and any number of processes
may draw ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ..emoji.captions import caption, encode_caption, second_noun
from ..emoji.codes import first_token, scene_tokens
from ..emoji.glyphs import GRID
from ..emoji.scenes import OPPOSITES, RELATIONS, Scene, place, sample_light, sample_shading, scene_stream
from .architecture import unconditional_prompt
from .phases import Phase, phase_at

MIXED = (0.45, 0.25, 0.30)  # shares of single objects, counts and relations that companions learn from
NOWHERE = -1  # the part of a noun that is not asked for one
MOST_OBJECTS = 3
_PATIENCE = 50  # captions drawn per row wanted, before those of the right length are used again


class Batch(NamedTuple):
    """B rows of one caption length P, N = 256 image tokens each.

    Attributes:
        prompt: `[B, P]` int64 ids; the unconditional prompt in rows whose caption was dropped.
        tokens: `[B, N]` int64.
        light: `[B, N]` float32, noise-free, in levels.
        begins: `[B, 3]` int64, the index of the first token of each object; N where there is none.
        noun: `[B]` int64, where in the prompt the second noun of a relation is, else 0.
        part: `[B]` int64, the part of the picture that this noun has, as an index into `RELATIONS`, else `NOWHERE`.
    """

    prompt: torch.Tensor
    tokens: torch.Tensor
    light: torch.Tensor
    begins: torch.Tensor
    noun: torch.Tensor
    part: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


def picture(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """One picture of a scene: tokens `[256]`, light `[256]` and where its objects begin, padded to three."""
    light, placements = sample_light(rng), place(scene, rng)
    tokens = scene_tokens(scene, placements, sample_shading(rng, light))
    begins = sorted(first_token(placement) for placement in placements)
    return tokens, light.reshape(-1), begins + [GRID * GRID] * (MOST_OBJECTS - len(begins))


def captioned_scenes(
    rng: np.random.Generator, mix: tuple[float, float, float], count: int
) -> list[tuple[Scene, list[int]]]:
    """Scenes with their prompts, all of the length of the first one drawn.

    Lengths so come as often as in single draws. Of a rare length, a scene may come more than once.
    """
    drawn = ((scene, encode_caption(caption(scene, rng))) for scene in scene_stream(rng, mix))
    found = [next(drawn)]
    for row in islice(drawn, _PATIENCE * count):
        if len(found) == count:
            break
        if len(row[1]) == len(found[0][1]):
            found.append(row)
    return [found[row % len(found)] for row in range(count)]


def draw_batch(
    rng: np.random.Generator, mix: tuple[float, float, float], size: int, caption_dropout: float = 0.1
) -> Batch:
    """A batch of `size` rows; `caption_dropout` is the share of rows that get the unconditional prompt.

    Causal attention without a mask is faster, and with rotary positions a left-padded row gives the same logits, so
    nothing is lost by never padding in training.
    """
    rows = captioned_scenes(rng, mix, size)
    scenes, prompts = zip(*rows)
    tokens, lights, begins = zip(*(picture(scene, rng) for scene in scenes))
    prompt = torch.tensor(prompts)
    dropped = torch.from_numpy(rng.random(size) < caption_dropout)
    nouns, parts = zip(*(noun_and_part(scene, ids) for scene, ids in rows))
    return Batch(
        torch.where(dropped[:, None], unconditional_prompt(prompt), prompt),
        torch.from_numpy(np.stack(tokens)),
        torch.from_numpy(np.stack(lights)),
        torch.tensor(begins),
        torch.tensor(nouns),
        torch.where(dropped, NOWHERE, torch.tensor(parts)),
    )


def noun_and_part(scene: Scene, prompt: Sequence[int]) -> tuple[int, int]:
    """Where a prompt has its second noun, and that object's own part of the picture; see `Batch`."""
    if scene.relation is None:
        return 0, NOWHERE
    return second_noun(scene, prompt), RELATIONS.index(OPPOSITES[scene.relation])


class Batches(Dataset):
    """Batch number i of a run.

    Args:
        phases: give the mix at the picture where the batch begins.
        size: rows per batch.
        seed: of the run.
    """

    def __init__(self, phases: Sequence[Phase], size: int, seed: int) -> None:
        self.phases, self.size, self.seed = phases, size, seed

    def __getitem__(self, index: int) -> Batch:
        phase, _ = phase_at(self.phases, index * self.size)
        return draw_batch(np.random.default_rng([self.seed, index]), phase.mix, self.size)
