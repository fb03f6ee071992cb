"""The network against its plain description, and what it must keep: dtype, order, cache, density."""

import pytest
import torch

from sjd_pipelines.models.tarflow import FlowCache, TarFlowTransformer2DModel

from . import reference
from .conftest import TINY, build_flow, pictures


@pytest.mark.parametrize("options", [{}, {"num_classes": 0}, {"volume_preserving": True}])
def test_encoding_follows_the_description(options):
    model = build_flow(torch.float64, **options)
    pixels, labels = pictures(3, torch.float64), torch.tensor([2, -1, 0])
    encoded = model(pixels, labels if model.config.num_classes else None)
    latents, log_det = reference.encode(model.state_dict(), pixels, labels.tolist(), 2)
    assert torch.allclose(encoded.latents, latents, rtol=1e-9, atol=1e-12)
    assert torch.allclose(encoded.log_det, log_det, rtol=1e-9, atol=1e-12)


def test_float64_stays_float64(wide_flow):
    encoded = wide_flow.encode(pictures(2, torch.float64))
    assert encoded.latents.dtype == torch.float64
    rounded = build_flow().encode(pictures(2, torch.float64).float()).latents
    assert 1e-9 < (encoded.latents - rounded).abs().max() < 1e-4


def test_half_precision_weights_leave_pictures_in_float32():
    encoded = build_flow(torch.bfloat16, gain=0.02).encode(pictures(2))
    assert encoded.latents.dtype == torch.float32
    assert torch.allclose(encoded.latents, build_flow(gain=0.02).encode(pictures(2)).latents, atol=0.05)


def test_a_class_left_out_is_the_mean_of_all(flow):
    pixels = pictures(2).to(flow.device)
    absent = flow.encode(pixels).latents
    assert torch.equal(absent, flow.encode(pixels, torch.tensor([-1, -1], device=flow.device)).latents)
    named = flow.encode(pixels, torch.tensor([0, 1], device=flow.device)).latents
    assert not torch.allclose(absent, named, atol=1e-3)


@pytest.mark.parametrize("block", [0, 1])
def test_cached_windows_equal_the_full_pass(flow, block):
    inputs = torch.randn(2, 15, 12, generator=torch.Generator().manual_seed(0)).to(flow.device)
    condition = flow.condition(block, torch.tensor([0, 2], device=flow.device), 2)
    full = torch.cat(flow.affine(block, inputs, condition), -1)
    cache = FlowCache(2, 2, 2, 15, 16, device=flow.device)
    parts = []
    for start, stop in [(0, 4), (4, 5), (5, 12), (12, 15)]:
        parts.append(torch.cat(flow.affine(block, inputs[:, start:stop], condition, start, cache), -1))
    assert torch.allclose(torch.cat(parts, 1), full, atol=1e-5)
    assert full.abs().max() > 0.1


def test_cache_rows_leave():
    cache = FlowCache(layers=1, rows=3, heads=1, length=2, head_dim=1)
    cache.update(0, torch.arange(6.0).view(2, 3, 1, 1, 1), 1)
    cache.keep(torch.tensor([0, 2]))
    assert cache.rows == 2
    assert cache.layers[0][:, :, 0, :, 0].tolist() == [[[0, 0], [0, 2]], [[0, 3], [0, 5]]]


def test_log_det_is_that_of_the_jacobian(wide_flow):
    pixels = pictures(1, torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: wide_flow.encode(x).latents.flatten(), pixels)
    log_det = torch.linalg.slogdet(jacobian.reshape(192, 192)).logabsdet
    assert torch.allclose(wide_flow.encode(pixels).log_det * 192, log_det, atol=1e-9)


def test_denoising_follows_the_score():
    wide_flow = build_flow(torch.float64, gain=0.02)
    pixels, labels = 0.5 * pictures(1, torch.float64), torch.tensor([1])
    with torch.no_grad():
        denoised = wide_flow.denoise(pixels, labels, strength=0.5)
        step = torch.zeros_like(pixels)
        step[0, 1, 2, 3] = 1e-5
        slope = 192 * (wide_flow.log_prob(pixels + step, labels) - wide_flow.log_prob(pixels - step, labels)) / 2e-5
    assert torch.allclose(denoised[0, 1, 2, 3] - pixels[0, 1, 2, 3], 0.5 * 0.1**2 * slope, rtol=1e-6)
    with torch.inference_mode():
        assert torch.equal(wide_flow.denoise(pixels, labels, strength=0.5), denoised)
    assert wide_flow.denoise(10 * pixels).abs().max() <= 1


def test_prior_of_a_volume_preserving_flow_learns_its_variance():
    model = build_flow(volume_preserving=True)
    for _ in range(60):
        model.update_prior(torch.full((4, 16, 12), 3.0))
    assert torch.allclose(model.var, torch.full((16, 12), 9.0), rtol=0.01)
    pixels = pictures(1)
    z, var = model.encode(pixels).latents, model.var
    expected = torch.distributions.Normal(0.0, var.sqrt()).log_prob(z).mean()
    assert torch.allclose(model.log_prob(pixels), expected)


def test_saved_and_loaded(flow, tmp_path):
    flow.save_pretrained(tmp_path)
    again, pixels = TarFlowTransformer2DModel.from_pretrained(tmp_path).to(flow.device), pictures(1).to(flow.device)
    again.requires_grad_(False)  # torch multiplies otherwise what may need a gradient
    assert torch.equal(again.encode(pixels).latents, flow.encode(pixels).latents)
    assert again.config.attention_head_dim == 16


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="sample_size must be a multiple of patch_size 3, got 8"):
        TarFlowTransformer2DModel(**TINY | {"patch_size": 3})
    with pytest.raises(ValueError, match="hidden_size must be a multiple of attention_head_dim 24, got 32"):
        TarFlowTransformer2DModel(**TINY | {"attention_head_dim": 24})


def test_a_picture_of_one_patch_is_refused():
    """There would be nothing to solve, and solvers would wait for it."""
    with pytest.raises(ValueError, match="sample_size must be at least twice patch_size 2, got 2"):
        build_flow(sample_size=2)
