"""Published VQ tokenizers as diffusers' `VQModel`."""

import pytest
import torch
from diffusers import VQModel

from sjd_pipelines.models import published_vq_weights, render_codes, vq_model_from_published
from sjd_pipelines.models.vq import vq_dialect


def vq_model(attention: bool, channels=(32, 64, 64), **options) -> VQModel:
    levels = len(channels)
    kind = "Attn" if attention else ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VQModel(
            down_block_types=("DownEncoderBlock2D",) * (levels - 1) + (f"{kind}DownEncoderBlock2D",),
            up_block_types=(f"{kind}UpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
            block_out_channels=channels,
            **{"layers_per_block": 2, "latent_channels": 32, "num_vq_embeddings": 16, "vq_embed_dim": 8} | options,
            lookup_from_codebook=True,
        ).eval()


def settings(model) -> dict:
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


@torch.no_grad()
@pytest.mark.parametrize("dialect", ["llamagen", "taming"])
@pytest.mark.parametrize("attention", [True, False])
def test_both_ways(dialect, attention):
    model = vq_model(attention)
    if dialect == "llamagen":  # normalises at every look-up
        codebook = model.quantize.embedding.weight
        codebook.copy_(torch.nn.functional.normalize(codebook, dim=-1))
    published = published_vq_weights(model, dialect)
    assert vq_dialect(published) == dialect
    expected = len(model.state_dict()) + (dialect == "llamagen")
    assert len(published) == expected
    back = vq_model_from_published(published | {"loss.logvar": torch.zeros(())})
    assert settings(back) == settings(model)
    grid = torch.randint(16, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    pixels = render_codes(model, grid)
    assert pixels.shape == (2, 3, 12, 16)
    assert torch.allclose(render_codes(back, grid), pixels, atol=1e-5)


def test_llamagen_codebook_is_normalised():
    published = published_vq_weights(vq_model(True), "llamagen")
    norms = vq_model_from_published(published).quantize.embedding.weight.norm(dim=-1)
    assert torch.allclose(norms, torch.ones(16))


def test_foreign_weights_are_refused():
    with pytest.raises(ValueError, match="not a VQGAN's"):
        vq_model_from_published({"encoder.conv_in.weight": torch.zeros(1)})
    published = published_vq_weights(vq_model(True), "taming")
    del published["decoder.mid.block_1.conv1.weight"]
    with pytest.raises(ValueError, match=r"mid_block.resnets.0.conv1.weight"):
        vq_model_from_published(published)


@pytest.mark.parametrize(
    ("channels", "options", "dialect", "millions", "count"),
    [
        # vq_ds16_t2i.pt and vq_ds16_c2i.pt, vq_ds8_c2i.pt, Meta's vqgan.ckpt
        ((128, 128, 256, 256, 512), {"latent_channels": 256, "num_vq_embeddings": 16384}, "llamagen", 71.88, 344),
        ((128, 256, 256, 512), {"latent_channels": 256, "num_vq_embeddings": 16384}, "llamagen", 70.11, None),
        (
            (128, 128, 256, 256, 512),
            {"latent_channels": 256, "num_vq_embeddings": 8192, "vq_embed_dim": 256},
            "taming",
            None,
            None,
        ),
    ],
)
def test_full_size_key_schema(channels, options, dialect, millions, count):
    with torch.device("meta"):
        model = vq_model(dialect == "llamagen", channels, **options)
    published = published_vq_weights(model, dialect)
    if millions is not None:
        assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    if count is not None:
        assert len(published) == count
    with torch.device("meta"):
        assert settings(vq_model_from_published(published)) == settings(model)
