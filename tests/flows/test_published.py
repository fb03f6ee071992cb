"""Published files: what is read from names and shapes, and that the weights mean what the description says."""

from pathlib import Path

import pytest
import torch

from sjd_pipelines.flows import FlowGuidance, FlowTarget, SequentialFlowSolver, invert
from sjd_pipelines.models.tarflow import TarFlowTransformer2DModel
from sjd_pipelines.models.tarflow_published import (
    PUBLISHED_TARFLOWS,
    noise_std_of,
    published_tarflow_name,
    tarflow_from_published,
)

from . import reference
from .conftest import build_flow, pictures

# file -> image side, patch, width, tokens, numbers per token, classes, noise, parameters in millions
ROWS = {
    "afhq_model_8_768_8_8_0.07": (256, 8, 768, 1024, 192, 3, 0.07, 463),
    "imagenet_model_4_1024_8_8_0.15": (128, 4, 1024, 1024, 48, 1000, 0.15, 824),
    "imagenet_model_4_1024_8_8_0.05": (64, 4, 1024, 256, 48, 1000, 0.05, 818),
    "imagenet_model_2_768_8_8_0.05": (64, 2, 768, 1024, 12, 1000, 0.05, 466),
    "imagenet64_model_2_768_8_8_0.05": (64, 2, 768, 1024, 12, 0, 0.05, 460),
}


def published_shapes(width, tokens, token_size, classes):
    """Names and shapes as they are in the files, attention masks included, on device meta."""
    shapes = {"var": (tokens, token_size)}
    for block in range(8):
        own = {
            "pos_embed": (tokens, width),
            "attn_mask": (tokens, tokens),
            "proj_in.weight": (width, token_size),
            "proj_in.bias": (width,),
            "proj_out.weight": (2 * token_size, width),
            "proj_out.bias": (2 * token_size,),
        }
        if classes:
            own["class_embed"] = (classes, 1, width)
        for layer in range(8):
            part = f"attn_blocks.{layer}."
            for name, rows, columns in (
                ("attention.qkv", 3 * width, width),
                ("attention.proj", width, width),
                ("mlp.main.0", 4 * width, width),
                ("mlp.main.2", width, 4 * width),
            ):
                own |= {f"{part}{name}.weight": (rows, columns), f"{part}{name}.bias": (rows,)}
            for name in ("attention.norm", "mlp.norm"):
                own |= {f"{part}{name}.weight": (width,), f"{part}{name}.bias": (width,)}
        shapes |= {f"blocks.{block}.{name}": shape for name, shape in own.items()}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ROWS)
def test_every_published_layout_loads(name):
    side, patch, width, tokens, token_size, classes, noise, millions = ROWS[name]
    model = tarflow_from_published(
        published_shapes(width, tokens, token_size, classes), noise_std_of(Path(name + ".pth"))
    )
    config = model.config
    assert (config.sample_size, config.patch_size, config.hidden_size) == (side, patch, width)
    assert (config.num_blocks, config.layers_per_block, config.attention_head_dim) == (8, 8, 64)
    assert (config.num_classes, config.noise_std, config.volume_preserving) == (classes, noise, False)
    assert round(model.num_parameters() / 1e6) == millions
    known = PUBLISHED_TARFLOWS[name]
    assert (known.image_size, known.classes) == (side, classes)


@pytest.mark.parametrize(
    ("options", "guidance"),
    [
        ({}, {}),
        ({}, {"scale": 1.5}),
        ({}, {"scale": 0.7, "annealed": False, "what": "shift"}),
        ({}, {"scale": 0.7, "what": "scale"}),
        ({"num_classes": 0}, {"scale": 1.0, "temperature": 0.3}),
        ({"volume_preserving": True}, {"scale": 0.5}),
    ],
)
def test_sampling_follows_the_description(options, guidance):
    weights = build_flow(torch.float64, **options).state_dict()
    weights["blocks.0.attn_mask"] = torch.ones(16, 16, dtype=torch.float64).tril()
    model = tarflow_from_published(weights, 0.05, attention_head_dim=16)
    labels = torch.tensor([2, 0])
    z = torch.randn(2, 16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    target = FlowTarget(model, labels if model.config.num_classes else None, 2, FlowGuidance(**guidance))
    run = invert(target, SequentialFlowSolver(), z)
    plain = dict(guidance)
    strength = plain.pop("scale", 0.0)
    expected = reference.sample(model.state_dict(), z, labels.tolist(), strength, **plain)
    assert torch.allclose(run.sample, expected, rtol=1e-9, atol=1e-11)
    assert (run.sample - z).abs().max() > 0.1


def test_a_large_layout_encodes_and_samples_as_described():
    """64 x 64 pixels in patches of 4: the geometry of a published file, with thinner layers."""
    model = build_flow(torch.float64, gain=0.02, sample_size=64, patch_size=4, num_blocks=2, hidden_size=16)
    weights = model.state_dict()
    pixels = pictures(1, torch.float64, side=64)
    latents, _ = reference.encode(weights, pixels, [1], 4)
    assert torch.allclose(model.encode(pixels, torch.tensor([1])).latents, latents, rtol=1e-9, atol=1e-12)
    run = invert(FlowTarget(model, torch.tensor([1]), 1), SequentialFlowSolver(), latents)
    assert torch.allclose(model.unpatchify(run.sample), pixels, rtol=1e-9, atol=1e-12)


def test_foreign_weights_are_refused(flow):
    weights = flow.state_dict()
    with pytest.raises(ValueError, match=r"are not a TarFlow's: 'blocks.0.pos_embed' is missing"):
        tarflow_from_published({"layers.0.weight": torch.zeros(1)}, 0.1)
    for changed, message in (
        ({"blocks.1.proj_in.bias": None}, "fit the TarFlow of their own shape: 'blocks.1.proj_in.bias' should be 32"),
        ({"head": torch.zeros(2)}, "'head' should be none, got 2"),
        ({"var": torch.zeros(3)}, "'var' should be 16 x 12, got 3"),
        ({"var": torch.zeros(())}, "'var' should be 16 x 12, got a number"),
        ({"blocks.0.pos_embed": torch.zeros(16)}, "are not a TarFlow's: their shapes are others"),
        ({"blocks.0.proj_in.weight": torch.zeros(())}, "are not a TarFlow's: their shapes are others"),
        ({"blocks.0.pos_embed": torch.zeros(16, 0)}, "blocks.0.pos_embed is empty"),
    ):
        broken = {name: weight for name, weight in (weights | changed).items() if weight is not None}
        with pytest.raises(ValueError, match=message) as refusal:
            tarflow_from_published(broken, 0.1, 3, 16)
        assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="16 tokens of 12 numbers are no square picture of 1 channels"):
        tarflow_from_published(weights, 0.1, in_channels=1)
    with pytest.raises(ValueError, match=r"model.pth does not tell the noise"):
        noise_std_of(Path("model.pth"))


def test_a_name_tells_all_of_the_noise():
    names = [published_tarflow_name(build_flow(noise_std=noise), "mine") for noise in (0.05, 0.1, 0.125, 2.0, 1e-5)]
    assert names[1].endswith("_0.10.pth")
    assert [noise_std_of(Path(name)) for name in names] == [0.05, 0.1, 0.125, 2.0, 1e-5]


def test_weights_go_out_as_they_came_in(flow):
    again = tarflow_from_published(flow.state_dict(), 0.1, attention_head_dim=16)
    assert isinstance(again, TarFlowTransformer2DModel)
    assert again.state_dict().keys() == flow.state_dict().keys()
