"""Trains the bundled class-conditional model: the tokens of one emoji, one by one or in parallel groups (PAR).

Recipe as Wang et al. 2024 (arXiv 2412.15119) train theirs: cross-entropy of all tokens in their order, under the mask
that decoding has, with a tenth of the classes left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..decoding import ImageTokenLayout, ParallelSequence
from ..emoji.codes import CODEBOOK
from ..emoji.glyphs import GRID, OBJECTS
from ..emoji.scenes import sample_scene
from ..learning.compilation import compiled_for
from ..learning.recipe import Amount, Count
from ..learning.saved import as_saved, read_state, read_weights
from ..models.llamagen import CONDITION, LlamaGenTransformer
from .attention import PrefixAttention
from .batches import picture
from .course import CourseRecipe, Files, Phase, Training
from .objective import FIRST_WEIGHT, token_law

FILES = Files.named("par")
ORDERS = ("raster", "par")
CLASS_DROPOUT = 0.1
PROBE_SEED, PROBE_PICTURES = 7, 96

ARCHITECTURE = {
    "num_layers": 5,
    "num_attention_heads": 5,
    "hidden_size": 160,
    "intermediate_size": 448,
    "codebook_size": CODEBOOK,
    "sample_size": GRID,
    "caption_channels": None,
    "num_classes": len(OBJECTS),
}

PHASES = (
    Phase(1_600, 8, 1.0, 0.99),
    Phase(9_600, 16, 1.0, 0.995),
    Phase(16_000, 16, 0.0, 0.998),
)


@dataclass
class ParRecipe(CourseRecipe):
    """How to train, see `CourseRecipe`.

    Attributes:
        order: `par`, or `raster` for a model that makes one token after the other.
        groups: tokens that a PAR model makes at once.
    """

    phases: tuple[Phase, ...] = PHASES
    muon_rate: Amount = 1e-2
    adam_rate: Amount = 3e-3
    log_pictures: Count = 3_200
    architecture: dict = field(default_factory=lambda: dict(ARCHITECTURE))
    order: str = "par"
    groups: Count = 4

    def __post_init__(self):
        super().__post_init__()
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}; got {self.order!r}.")
        self.architecture = self.architecture | {"parallel_tokens": self.groups if self.order == "par" else 1}


class ClassBatch(NamedTuple):
    """B pictures of one object each, N tokens in raster order.

    Attributes:
        labels: `[B]` int64, indices into `OBJECTS`; their number where the class is left out.
        tokens: `[B, N]` int64.
        light: `[B, N]` float32, noise-free, in levels.
    """

    labels: torch.Tensor
    tokens: torch.Tensor
    light: torch.Tensor


def class_batch(batch_size: int, seed: int, dropout: float, held_out: bool = False) -> ClassBatch:
    """Pictures that are a function of `seed`; `dropout` is the share of rows without their class."""
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, "single", held_out) for _ in range(batch_size)]
    tokens, lights, _ = zip(*(picture(scene, rng) for scene in scenes))
    labels = np.array([OBJECTS.index(scene.objects[0]) for scene in scenes])
    labels[rng.random(batch_size) < dropout] = len(OBJECTS)
    return ClassBatch(*(torch.from_numpy(np.stack(rows)) for rows in (labels, tokens, lights)))


class TaughtSequence:
    """The teacher-forced pass of a model: the law of every token given those made before it.

    Args:
        model: is fed.
    """

    def __init__(self, model: LlamaGenTransformer):
        config = model.config
        self.model = model
        self.layout = ImageTokenLayout.in_regions(
            config.sample_size, config.sample_size, config.codebook_size, config.parallel_tokens
        )
        self.sequence, count, device = ParallelSequence(self.layout), self.layout.num_tokens, model.device
        positions = self.sequence.positions(count - 1)
        cells = self.layout.cells(count + config.parallel_tokens)
        cells[count:] = CONDITION  # of learned tokens
        self.order = cells[:count].to(device)
        self.position_ids = torch.cat([torch.tensor([CONDITION]), cells[positions]])[None].to(device)
        ends = torch.cat([torch.ones(1, dtype=torch.int64), self.sequence.ends(count - 1) + 1])  # after the condition
        hidden = torch.arange(count) >= ends[:, None]
        self.bias = torch.zeros(1, 1, count, count).masked_fill(hidden, -torch.inf).to(device)
        for layer in model.layers:
            layer.attention.attend = PrefixAttention(ends)

    def logits(self, labels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """`[B]` classes and `[B, N]` tokens by position -> `[B, N, V]` float32."""
        with torch.autocast(tokens.device.type, torch.bfloat16):
            embeds = self.model.embed(self.sequence.fed(tokens))
            embeds = torch.cat([self.model.class_embedding(labels[:, None]), embeds], 1)
            return self.model.head(self.model(embeds, self.bias, self.position_ids)).float()

    def losses(self, batch: ClassBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """What training descends, a scalar in nats per token, and the plain negative log-likelihood, detached."""
        tokens, light = batch.tokens[:, self.order], batch.light[:, self.order]
        log_law = torch.log_softmax(self.logits(batch.labels, tokens), dim=-1)
        choices, law = token_law(tokens, light)
        soft = -(law * log_law.gather(-1, choices)).sum(-1)  # [B, N]
        weights = torch.ones(tokens.shape[1], device=tokens.device)
        weights[0] = FIRST_WEIGHT  # the first token alone decides the background colour
        plain = -log_law.detach().gather(-1, tokens[..., None]).mean()
        return (weights * soft).mean(0).sum() / weights.sum(), plain


def build_model(architecture: dict, seed: int) -> LlamaGenTransformer:
    """A model with random weights; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaGenTransformer(**architecture)
        for name, parameter in model.named_parameters():
            if "embedding" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    torch.nn.init.zeros_(model.head.weight)
    return model


class ParTraining(Training):
    """A run of the class-conditional model."""

    files = FILES

    def __init__(self, recipe: ParRecipe):
        model = build_model(recipe.architecture, recipe.seed)
        # To the optimizer the head is a table.
        roles = {name.replace("head", "embed_head"): p for name, p in model.named_parameters()}
        super().__init__(recipe, model, roles)
        self.taught = TaughtSequence(model)
        self.losses = compiled_for(self.device, self.taught.losses, dynamic=False)
        self.probed = self.on_device(class_batch(PROBE_PICTURES, PROBE_SEED, 0.0, held_out=True))

    def loss(self, batch_size: int, seed: int) -> torch.Tensor:
        return self.losses(self.on_device(class_batch(batch_size, seed, CLASS_DROPOUT)))[0]

    @torch.no_grad()
    def probe(self) -> float:
        """Nats per token of held-out pictures, the noise of the ground included."""
        return float(self.taught.losses(self.probed)[1])

    def on_device(self, batch: ClassBatch) -> ClassBatch:
        return ClassBatch(*(tensor.to(self.device) for tensor in batch))


def train_par(recipe: ParRecipe) -> dict:
    """Train, or train on; returns the last log entry."""
    return ParTraining(recipe).train()


def load_trained(folder: str | Path) -> LlamaGenTransformer:
    """The model with the averaged weights of a run.

    Raises:
        FileNotFoundError: nothing has been saved yet.
        OSError: it is not as it was saved.
    """
    folder = Path(folder)
    state, average = read_state(folder / FILES.state), read_weights(folder / FILES.average)
    with as_saved(folder / FILES.state):
        model = build_model(state["architecture"], 0)
        model.load_state_dict(average)
    return model.eval()
