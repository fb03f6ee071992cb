"""A tiny random flow, 4 x 4 patches in three blocks, whose scales and shifts depend strongly on what comes before."""

import pytest
import torch

from sjd_pipelines.models.tarflow import TarFlowTransformer2DModel

TINY = {
    "sample_size": 8,
    "patch_size": 2,
    "hidden_size": 32,
    "num_blocks": 3,
    "layers_per_block": 2,
    "attention_head_dim": 16,
    "num_classes": 3,
}


def build_flow(dtype=torch.float32, gain=0.04, **options):
    """The tiny flow; `gain` is how strongly a token depends on those before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TarFlowTransformer2DModel(**TINY | options)
        for block in model.blocks:
            torch.nn.init.normal_(block.proj_out.weight, std=gain)
            torch.nn.init.normal_(block.pos_embed)
            if model.config.num_classes:
                torch.nn.init.normal_(block.class_embed)
    return torch.nn.Module.to(model, dtype).eval().requires_grad_(False)


def pictures(count, dtype=torch.float32, seed=1, side=8):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, 3, side, side, generator=generator, dtype=dtype) - 1


@pytest.fixture(scope="session")
def flow(device):
    return build_flow().to(device)


@pytest.fixture(scope="session")
def wide_flow():
    """In float64."""
    return build_flow(torch.float64)
