"""Trains the bundled flow on endless rendered pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..emoji.flow_world import SIDE, PictureStream
from ..emoji.glyphs import OBJECTS
from ..learning.recipe import Amount
from ..learning.saved import as_saved, read_state, read_weights
from ..models.tarflow import TarFlowTransformer2DModel
from .course import CourseRecipe, Files, Phase, Training

FILES = Files.named("flow")
LABEL_DROPOUT = 0.1
PROBE_SEED, PROBE_PICTURES = 7, 96

ARCHITECTURE = {
    "sample_size": SIDE,
    "patch_size": 2,
    "hidden_size": 64,
    "num_blocks": 4,
    "layers_per_block": 2,
    "attention_head_dim": 32,
    "num_classes": len(OBJECTS),
    "noise_std": 0.1,
}

PHASES = (
    Phase(3_200, 32, 1.0, 0.99),
    Phase(150_400, 32, 1.0, 0.995),
    Phase(249_600, 64, 0.0, 0.998),
)


@dataclass
class FlowRecipe(CourseRecipe):
    """How to train the flow, see `CourseRecipe`."""

    phases: tuple[Phase, ...] = PHASES
    muon_rate: Amount = 1.5e-2
    adam_rate: Amount = 3e-3
    architecture: dict = field(default_factory=lambda: dict(ARCHITECTURE))


def build_model(architecture: dict, seed: int) -> TarFlowTransformer2DModel:
    """A flow with random weights; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TarFlowTransformer2DModel(**architecture)


def flow_loss(
    model: TarFlowTransformer2DModel, pixels: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`z^2 / 2 - log det`, both per dimension: the negative log-likelihood up to a constant, `[B]`; and z."""
    encoded = model.encode(pixels, labels)
    return 0.5 * encoded.latents.square().mean((1, 2)) - encoded.log_det, encoded.latents


class FlowTraining(Training):
    """A run of the flow."""

    files = FILES
    model: TarFlowTransformer2DModel

    def __init__(self, recipe: FlowRecipe):
        model = build_model(recipe.architecture, recipe.seed)
        # To the optimizer the projections between patches and states are tables.
        roles = {
            name.replace("proj_in", "embed_in").replace("proj_out", "embed_out"): p
            for name, p in model.named_parameters()
        }
        super().__init__(recipe, model, roles)
        self.stream: PictureStream | None = None
        self.latents: torch.Tensor | None = None

    def averaged_buffers(self) -> dict[str, torch.Tensor]:
        return {"var": self.model.var.cpu()} if self.model.config.volume_preserving else {}

    def loss(self, batch_size: int, seed: int) -> torch.Tensor:
        """In nats per dimension, up to a constant."""
        if self.stream is None or self.stream.batch_size != batch_size:
            self.stream = PictureStream(batch_size, self.recipe.seed, self.device)
        generator = self.stream.generator.manual_seed(seed)
        pixels, labels = self.stream.next()
        dropped = torch.rand(labels.shape, generator=generator, device=self.device) < LABEL_DROPOUT
        noise = torch.randn(pixels.shape, generator=generator, device=self.device)
        noisy = pixels + self.model.config.noise_std * noise
        with torch.autocast(self.device.type, torch.bfloat16):
            losses, latents = flow_loss(self.model, noisy, labels.masked_fill(dropped, -1))
            self.latents = latents.detach()
            return losses.mean()

    def step(self, phase: Phase, rate: float) -> torch.Tensor:
        loss = super().step(phase, rate)
        if self.model.config.volume_preserving:
            self.model.update_prior(self.latents)
        return loss

    @torch.no_grad()
    def probe(self) -> float:
        stream = PictureStream(PROBE_PICTURES, PROBE_SEED)
        pixels, labels = stream.next()
        noise = self.model.config.noise_std * torch.randn(pixels.shape, generator=stream.generator)
        losses, _ = flow_loss(self.model, (pixels + noise).to(self.device), labels.to(self.device))
        return float(losses.mean())


def train_flow(recipe: FlowRecipe) -> dict:
    """Train, or train on; returns the last log entry."""
    return FlowTraining(recipe).train()


def load_trained(folder: str | Path) -> TarFlowTransformer2DModel:
    """The flow with the averaged weights of a run.

    Raises:
        FileNotFoundError: nothing has been saved yet.
        OSError: it is not as it was saved.
    """
    folder = Path(folder)
    state, average = read_state(folder / FILES.state), read_weights(folder / FILES.average)
    with as_saved(folder / FILES.state):
        model = build_model(state["architecture"], 0)
        model.load_state_dict(state["model"] | average)
    return model.eval()
