"""Trains a draft reviser on passes of a pipeline over its own drafts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..companions import DraftReviser
from ..decoding import guide
from ..learning.recipe import Amount, Count, PositiveAmount
from ..learning.timed import TimedRecipe
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.weights import load_network
from .companion_run import CompanionRun, export_companion, frozen_target
from .export import BUNDLED
from .revisions import Drawn, Revisions

NAME = "reviser"
NEARER = 0.9  # how much less a place counts than the one before it: the first ones decide how far a pass gets
PROBED = {"weak": 1.5, "strong": 3.0}  # strengths of guidance

_CARD = """# Draft reviser

{parameters:.2f} million parameters that say how the logits of the model in the folder above change with the tokens
around them. It decides how many forward passes `revised-jacobi` saves, never what is drawn.

Made by `python -m sjd_pipelines.training reviser`: {step:,} steps and {seconds:.0f} seconds on {machine}, over
{images:,} pictures that the model drew meanwhile. In pictures that training does not see, where the tokens around a
place have changed from one pass to the next, the law that the model gave overlaps the one it gives next by
{probe_before_weak:.2f}, the revised law by {probe_revised_weak:.2f} (guidance 1.5; at guidance 3 by
{probe_before_strong:.2f} and {probe_revised_strong:.2f}).
"""


@dataclass
class ReviserRecipe(TimedRecipe):
    """How to train; `batch_size` is in places.

    Attributes:
        start: folder of a reviser that a new run begins with, such as that of a student's teacher.
    """

    minutes: PositiveAmount = 20.0
    decay_minutes: Amount = 10.0
    batch_size: Count = 2048
    log_every: Count = 100
    start: str = ""


def build_reviser(pipe: SJDAutoRegressivePipeline, seed: int, start: str = "") -> DraftReviser:
    """The reviser in the folder `start`, or one that changes nothing yet; the caller's random state is not touched."""
    if start:
        return load_network(DraftReviser, Path(start), torch.float32)
    vocabulary_size = pipe.image_layout(None, None).vocabulary_size
    width = pipe.embed_image_tokens(torch.zeros(1, 1, dtype=torch.int64, device=pipe.device)).shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DraftReviser(width, vocabulary_size)
    with torch.no_grad():
        network.seen_gate.weight.copy_(-network.token_gate.weight)  # what has not changed says nothing
    torch.nn.init.zeros_(network.out.weight)
    return network


def reviser_loss(
    network: DraftReviser, pipe: SJDAutoRegressivePipeline, image_embeds: torch.Tensor, drawn: Drawn
) -> tuple[torch.Tensor, dict[str, float]]:
    """Soft cross-entropy of the revised laws to those of the next pass.

    Args:
        network: the draft reviser.
        pipe: the target.
        image_embeds: `[V, D]`, the target's embedding of every image token.
        drawn: where laws have changed.

    Returns:
        The loss, and for the log the overlaps of the next law with the earlier and with the revised one.
    """
    examples, scale = drawn.examples, drawn.guidance_scale
    hidden = examples.hidden.float()
    states = torch.stack([hidden[..., 0, :], examples.result.float()], 1)  # [C, 2, M, D]
    with torch.autocast(image_embeds.device.type, torch.bfloat16):
        with torch.no_grad():
            before, after = pipe.guided_logits(states.flatten(0, 1), scale)  # [M, V] each
            law = after.float().softmax(-1)
        codes = network.code(image_embeds)
        outputs = network(hidden, codes[examples.seen], codes[examples.tokens])  # [2, M, width]
        change = network.change(guide(outputs[0], outputs[1], scale))
    revised = (before.float() + change.float()).log_softmax(-1)
    share = NEARER ** examples.distance.float()
    share = share / share.sum()
    overlaps = {"before": before.float().softmax(-1), "revised": revised.detach().exp()}
    means = {name: float((torch.minimum(law, other).sum(-1) * share).sum()) for name, other in overlaps.items()}
    return (-(law * revised).sum(-1) * share).sum(), means


def train_reviser(recipe: ReviserRecipe, pipe: SJDAutoRegressivePipeline | None = None) -> dict:
    """Train (or go on training) until the time is up; returns the last log entry.

    Writes the averaged weights, a resumable state and a JSON-lines log into `recipe.folder`.

    Raises:
        OSError: there is no reviser in `recipe.start`.
        ArithmeticError: the loss is not finite.
    """
    pipe = frozen_target(recipe, pipe)
    run = CompanionRun(NAME, build_reviser(pipe, recipe.seed, recipe.start), recipe)
    vocabulary = torch.arange(pipe.image_layout(None, None).vocabulary_size, device=pipe.device)
    image_embeds = pipe.embed_image_tokens(vocabulary).detach()
    stream = Revisions(pipe, np.random.default_rng([recipe.seed, run.progress["step"]]))
    already = run.progress["images"]

    def loss_of() -> tuple[torch.Tensor, dict[str, float]]:
        run.progress["images"] = already + stream.images
        return reviser_loss(run.network, pipe, image_embeds, stream.next(recipe.batch_size))

    def probe() -> dict[str, float]:
        unseen = Revisions(pipe, np.random.default_rng([recipe.seed, 2**32]))
        values = {}
        for strength, scale in PROBED.items():
            loss, overlaps = reviser_loss(run.network, pipe, image_embeds, unseen.draw(scale))
            values |= {f"{name}_{strength}": value for name, value in (overlaps | {"loss": loss.item()}).items()}
        return values

    return run.train(loss_of, probe)


def export_reviser(folder: str | Path, target: str | Path = BUNDLED) -> Path:
    """Write the averaged weights of a run as the `reviser` folder of a pipeline's folder, see `export_companion`."""

    def build(weights: dict[str, torch.Tensor]) -> DraftReviser:
        return DraftReviser(hidden_size=len(weights["norm.weight"]), vocabulary_size=len(weights["table.weight"]))

    return export_companion(NAME, build, Path(folder), Path(target), _CARD)
