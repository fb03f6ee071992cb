"""Trains a draft model on the hidden states and laws of a pipeline, over its own roll-outs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import DynamicCache

from ..companions import EagleDrafter
from ..companions.drafter import CARRIED_LAW
from ..decoding import Query, Sampling
from ..emoji.captions import caption
from ..emoji.codes import scene_tokens
from ..emoji.scenes import Scene, place, sample_shading, scene_stream
from ..learning.recipe import Amount, Count, Share
from ..learning.timed import TimedRecipe, means
from ..pipelines import SJDAutoRegressivePipeline
from .batches import MIXED
from .companion_run import CompanionRun, export_companion, frozen_target
from .drawings import WINDOW, Drawing, Drawings
from .export import BUNDLED

NAME = "drafter"
HEADS, ROPE_THETA = 8, 100.0
LARGEST_GUIDANCE = 4.0
ROLLED_SHARE = 0.35  # of the target's own pictures that are rolled out too, besides being corrected

_CARD = """# Draft model of Emoji Janus

One layer, {parameters:.2f} million parameters, that guesses the next hidden state of the model in the folder above
(EAGLE, Li et al. 2024); embedding and head are that model's. It decides how many forward passes are saved, never what
an exact or lossless decoder draws.

Made by `python -m sjd_pipelines.training drafter`: {images:,} pictures in {step:,} steps and {seconds:.0f} seconds on
{machine}. On scenes that training does not see, at guidance 1.5, its law overlaps the model's
by {probe_overlap_1:.2f} one token ahead; going on from its guesses, by {probe_overlap_2:.2f} and then
{probe_overlap_3:.2f}.
"""


@dataclass
class DrafterRecipe(TimedRecipe):
    """How to train.

    Attributes:
        drawn_share: of the pictures that are the target's own drawings; the rest is rendered.
        roll_out: drafts in a row that the loss looks at.
        feature_weight: of the loss on hidden states.
    """

    drawn_share: Share = 0.75
    roll_out: Count = 3
    feature_weight: Amount = 1.0


@torch.no_grad()
def teach(
    pipe: SJDAutoRegressivePipeline, captions: list[str], tokens: torch.Tensor, guidance_scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the target thinks of whole pictures, teacher-forced.

    Args:
        pipe: the target.
        captions: B of them.
        tokens: `[B, N]` int64.
        guidance_scale: more than 1.

    Returns:
        Hidden states `[2B, N, D]` (unconditional rows last) and guided logits `[B, N, V]`; entry n is that of the
        slot before token n, whose law it is.
    """
    layout = pipe.image_layout(None, None)
    encoded = pipe.encode_prompt(captions, None, True, 1, layout)
    target = pipe.prepare_target(encoded, layout, Sampling(guidance_scale))
    taught = target.run(Query.teacher_forced(tokens))
    return taught.hidden.float(), taught.logits.float()


def roll_out_mask(length: int, step: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """What token s sees when it is the draft number `step` (from 0) in a row: `[length, (step + 1) * length]` bool.

    Keys come in as many streams as there were steps. Drafts of this roll-out are seen as their step made them, one
    each; everything before them as step 0 did, from the target's hidden states.
    """
    at = torch.arange(length, device=device)
    behind = at[:, None] - at  # [s, s']
    streams = [behind >= step] + [behind == step - stream for stream in range(1, step + 1)]
    return torch.cat(streams, 1)


def roll_out(
    drafter: EagleDrafter, hidden: torch.Tensor, embeds: torch.Tensor, columns: int, steps: int
) -> Iterator[torch.Tensor]:
    """The drafter's guesses when it goes on from its own: one `[R, N, D]` per step, valid from token `step` on.

    Args:
        drafter: the draft model.
        hidden: `[R, N, D]`, the target's hidden states at the tokens before.
        embeds: `[R, N, D]`, embeddings of the tokens.
        columns: tokens per row of the picture.
        steps: drafts in a row.
    """
    positions = torch.arange(hidden.shape[1], device=hidden.device).expand(hidden.shape[:2])
    rotations = drafter.rotations(hidden.shape[1], columns, hidden.device)
    features, cache = hidden, DynamicCache()
    for step in range(steps):
        mask = roll_out_mask(hidden.shape[1], step, hidden.device)[None, None]
        guess = drafter(features, embeds, mask, positions, rotations, cache).float()
        yield guess
        features = torch.cat([hidden[:, :1], guess[:, :-1]], 1)


def drafter_loss(
    drafter: EagleDrafter,
    pipe: SJDAutoRegressivePipeline,
    captions: list[str],
    tokens: torch.Tensor,
    guidance_scale: float,
    recipe: DrafterRecipe,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Soft cross-entropy to the target's guided law plus smooth L1 to its hidden states, the mean over the roll-out.

    Returns:
        The loss, and for the log the mean overlap of the laws (the chance that a draft is accepted) by step.
    """
    with torch.autocast(tokens.device.type, torch.bfloat16):
        hidden, logits = teach(pipe, captions, tokens, guidance_scale)
        embeds = pipe.embed_image_tokens(tokens[:, :-1]).detach().repeat(2, 1, 1)
        columns = pipe.image_layout(None, None).width
        law = logits[:, 1:].softmax(-1)
        losses, overlaps = [], {}
        for step, guess in enumerate(roll_out(drafter, hidden[:, :-1], embeds, columns, recipe.roll_out)):
            log_draft = pipe.guided_logits(guess[:, step:], guidance_scale).float().log_softmax(-1)
            entropy = -(law[:, step:] * log_draft).sum(-1).mean()
            losses.append(entropy + recipe.feature_weight * F.smooth_l1_loss(guess[:, step:], hidden[:, 1 + step :]))
            overlap = torch.minimum(law[:, step:], log_draft.detach().exp()).sum(-1)
            overlaps[f"overlap_{step + 1}"] = overlap.mean().item()
    return torch.stack(losses).mean(), overlaps


def correction_loss(
    drafter: EagleDrafter, pipe: SJDAutoRegressivePipeline, drawing: Drawing, rng: np.random.Generator, count: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """Soft cross-entropy to the target's law after a change of drafts, corrected from its states before the change.

    Args:
        drafter: the draft model.
        pipe: the target.
        drawing: where drafts and their changes come from.
        rng: chooses pictures and passes.
        count: pictures.

    Returns:
        The loss, and for the log the overlaps of the new law with the old and with the corrected one.
    """
    device = drawing.canvas.device
    rows = torch.from_numpy(rng.choice(len(drawing.captions), count, replace=False)).to(device)
    unfinished = (drawing.committed[1:, rows] < drawing.canvas.shape[-1]).sum(0)  # [B] passes with tokens left behind
    passes = 1 + (torch.from_numpy(rng.random(count)).to(device) * unfinished).long()
    old, new = drawing.canvas[passes - 1, rows], drawing.canvas[passes, rows]  # [B, N]
    front = drawing.committed[passes, rows][:, None] - 1
    at = torch.arange(new.shape[1] - 1, device=device)
    seen = drawing.committed[passes - 1, rows][:, None] - 1 + WINDOW
    inside = (at >= front) & (at <= seen)  # [B, N - 1]
    captions = [drawing.captions[row] for row in rows.tolist()]
    with torch.autocast(new.device.type, torch.bfloat16):
        hidden, before = teach(pipe, captions, old, drawing.guidance_scale)
        _, after = teach(pipe, captions, new, drawing.guidance_scale)
        columns = pipe.image_layout(None, None).width
        guesses = []
        for tokens in (old, new):
            embeds = pipe.embed_image_tokens(tokens[:, :-1]).detach().repeat(2, 1, 1)
            guesses.append(next(roll_out(drafter, hidden[:, :-1], embeds, columns, 1)))
        changed = (old != new)[:, :-1].repeat(2, 1)[..., None]
        corrected = guesses[1] + torch.where(changed, CARRIED_LAW, 1.0) * (hidden[:, 1:] - guesses[0])
        law = after[:, 1:].softmax(-1)
        log_draft = pipe.guided_logits(corrected, drawing.guidance_scale).float().log_softmax(-1)
    share = inside / inside.sum().clamp(min=1)
    overlaps = {
        "overlap_before": torch.minimum(law, before[:, 1:].softmax(-1)),
        "overlap_corrected": torch.minimum(law, log_draft.detach().exp()),
    }
    means = {name: float((overlap.sum(-1) * share).sum()) for name, overlap in overlaps.items()}
    return (-(law * log_draft).sum(-1) * share).sum(), means


def build_drafter(hidden_size: int, seed: int) -> EagleDrafter:
    """A drafter that begins by repeating the last hidden state; the caller's random state is not touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drafter = EagleDrafter(hidden_size, HEADS, 3 * hidden_size, ROPE_THETA)
    with torch.no_grad():
        drafter.fuse.weight[:, hidden_size:].copy_(torch.eye(hidden_size))
        for projection in (drafter.layer.attention.to_out, drafter.layer.feed_forward.down):
            projection.weight.zero_()
    return drafter


def train_drafter(recipe: DrafterRecipe, pipe: SJDAutoRegressivePipeline | None = None) -> dict:
    """Train (or go on training) until the time is up; returns the last log entry.

    Writes the averaged weights, a resumable state and a JSON-lines log into `recipe.folder`.

    Raises:
        ArithmeticError: the loss is not finite.
    """
    pipe = frozen_target(recipe, pipe)
    width = pipe.embed_image_tokens(torch.zeros(1, 1, dtype=torch.int64, device=pipe.device)).shape[-1]
    run = CompanionRun(NAME, build_drafter(width, recipe.seed), recipe)
    rng = np.random.default_rng([recipe.seed, run.progress["step"]])
    scenes, drawings = scene_stream(rng, MIXED), Drawings(pipe, rng)

    def loss_of() -> tuple[torch.Tensor, dict[str, float]]:
        run.progress["images"] += recipe.batch_size
        if rng.random() >= recipe.drawn_share:
            captions, tokens = _render(scenes, recipe.batch_size, rng, pipe.device)
            # Guidance mixes the drafter's two guesses, whatever its strength.
            guidance_scale = float(rng.uniform(1.01, LARGEST_GUIDANCE))
            return drafter_loss(run.network, pipe, captions, tokens, guidance_scale, recipe)
        drawing = drawings.next()
        loss, overlaps = correction_loss(run.network, pipe, drawing, rng, recipe.batch_size)
        if rng.random() < ROLLED_SHARE:
            rows = slice(recipe.batch_size)
            tokens, captions = drawing.canvas[-1][rows], drawing.captions[rows]
            rolled, more = drafter_loss(run.network, pipe, captions, tokens, drawing.guidance_scale, recipe)
            loss, overlaps = loss + rolled, overlaps | more
        return loss, overlaps

    return run.train(loss_of, lambda: _probe(run.network, pipe, recipe))


def export_drafter(folder: str | Path, target: str | Path = BUNDLED) -> Path:
    """Write the averaged weights of a run as the `drafter` folder of a pipeline's folder, see `export_companion`."""

    def build(weights: dict[str, torch.Tensor]) -> EagleDrafter:
        return build_drafter(len(weights["norm.weight"]), seed=0)

    return export_companion(NAME, build, Path(folder), Path(target), _CARD)


def _probe(drafter: EagleDrafter, pipe: SJDAutoRegressivePipeline, recipe: DrafterRecipe) -> dict[str, float]:
    """Loss and overlaps of fixed scenes that training does not see, at guidance 1.5."""
    rng = np.random.default_rng([recipe.seed, 2**32])
    scenes = scene_stream(rng, MIXED)
    entries = []
    for _ in range(4):
        captions, tokens = _render(scenes, recipe.batch_size, rng, pipe.device)
        loss, overlaps = drafter_loss(drafter, pipe, captions, tokens, 1.5, recipe)
        entries.append({"loss": loss.item()} | overlaps)
    return means(entries)


def _render(
    scenes: Iterator[Scene], count: int, rng: np.random.Generator, device: torch.device
) -> tuple[list[str], torch.Tensor]:
    """Captions and rendered tokens `[count, N]` of the next scenes."""
    batch = [next(scenes) for _ in range(count)]
    tokens = np.stack([scene_tokens(scene, place(scene, rng), sample_shading(rng)) for scene in batch])
    return [caption(scene, rng) for scene in batch], torch.from_numpy(tokens).to(device)
