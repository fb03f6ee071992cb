"""A random flow, small enough to be solved in an instant, whose tokens depend strongly on those before them."""

import torch

from ..flows import FlowSolver, FrontierFlowSolver
from ..models import TarFlowTransformer2DModel
from ..pipelines import TarFlowPipeline

NAMES = ("cat", "dog", "red fox")
SETTINGS = {
    "sample_size": 8,
    "patch_size": 2,
    "hidden_size": 32,
    "num_blocks": 2,
    "attention_head_dim": 16,
    "num_classes": len(NAMES),
    "noise_std": 0.05,
}


def toy_flow_pipeline(
    gain: float = 0.04, seed: int = 0, scheduler: FlowSolver | None = None, **settings: int | float
) -> TarFlowPipeline:
    """4 x 4 patches in two blocks, guided by 0.5.

    Args:
        gain: how strongly a token depends on those before it; the flow overflows above 1 or so.
        seed: of the weights.
        scheduler: default the exact frontier solver.
        **settings: of `TarFlowTransformer2DModel` that differ from `SETTINGS`.
    """
    with torch.random.fork_rng(devices=[]):  # modules initialise from the global generator
        torch.manual_seed(seed)
        model = TarFlowTransformer2DModel(**SETTINGS | settings)
        for block in model.blocks:
            torch.nn.init.normal_(block.proj_out.weight, std=gain)
            if model.config.num_classes:
                torch.nn.init.normal_(block.class_embed)
    names = dict(enumerate(NAMES)) if model.config.num_classes else None
    return TarFlowPipeline(model.eval(), scheduler or FrontierFlowSolver(), names, {"guidance_scale": 0.5})
