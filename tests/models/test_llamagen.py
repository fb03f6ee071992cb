"""LlamaGen's transformer: rotation, cache, published names, full-size shapes."""

import pytest
import torch

from sjd_pipelines import CanvasCache, LlamaGenTransformer
from sjd_pipelines.models import LLAMAGEN_SIZES, llamagen_from_published, published_llamagen_weights
from sjd_pipelines.models.llamagen import raster_rotation, rotate


def tiny(**options) -> LlamaGenTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {
            "num_layers": 2,
            "num_attention_heads": 2,
            "hidden_size": 32,
            "codebook_size": 16,
            "sample_size": 4,
        }
        return LlamaGenTransformer(**settings | {"caption_channels": 8, "caption_length": 3} | options).eval()


def settings(model) -> dict:
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


def test_rotation_turns_by_row_and_column():
    cosine, sine = raster_rotation(torch.tensor([[6]]), columns=4, head_size=8, theta=10000.0)  # row 1, column 2
    angles = torch.tensor([1.0, 0.01, 2.0, 0.02])
    assert torch.allclose(cosine[0, 0, 0], angles.cos())
    assert torch.allclose(sine[0, 0, 0], angles.sin())
    states = torch.tensor([1.0, 0.0] * 4).view(1, 1, 1, 8)
    turned = rotate(states, cosine, sine)[0, 0, 0]
    assert torch.allclose(turned[0::2], angles.cos())
    assert torch.allclose(turned[1::2], angles.sin())


def test_rotated_condition_vanishes():
    cosine, sine = raster_rotation(torch.tensor([[-1, 0]]), columns=4, head_size=8, theta=10000.0)
    states = torch.ones(1, 2, 2, 8)
    turned = rotate(states, cosine, sine)
    assert (turned[:, :, 0] == 0).all()
    assert torch.equal(turned[:, :, 1], states[:, :, 1])


@torch.no_grad()
def test_cached_windows_equal_the_full_pass():
    model = tiny()
    generator = torch.Generator().manual_seed(1)
    embeds = torch.randn(2, 11, 32, generator=generator)
    positions = torch.cat([torch.full((3,), -1), torch.arange(8)]).expand(2, -1)
    causal = torch.ones(11, 11, dtype=torch.bool).tril().expand(2, 1, -1, -1)
    full = model(embeds, causal, positions)
    cache = CanvasCache(11)
    parts = []
    for start, end in [(0, 2), (2, 7), (7, 11)]:
        cache.place(torch.arange(start, end).expand(2, -1), end)
        parts.append(model(embeds[:, start:end], causal[:, :, start:end, :end], positions[:, start:end], cache))
    assert torch.allclose(torch.cat(parts, 1), full, atol=1e-5)
    assert cache.nbytes == 2 * 2 * 2 * 11 * 32 * 4  # keys and values, layers, rows, slots, channels, bytes


@torch.no_grad()
def test_image_tokens_weigh_visible_condition_tokens_alike():
    model = tiny(num_layers=1)
    embeds = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[-1, -1, -1, 0, 1]])
    causal = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    shuffled = embeds[:, [2, 0, 1, 3, 4]]
    hidden, other = model(embeds, causal, positions), model(shuffled, causal, positions)
    assert torch.allclose(hidden[:, 3:], other[:, 3:], atol=1e-5)


@pytest.mark.parametrize("condition", [{}, {"caption_channels": None, "caption_length": 120, "num_classes": 7}])
def test_published_names_both_ways(condition):
    model = tiny(**condition)
    published = published_llamagen_weights(model)
    published["freqs_cis"] = torch.zeros(4)  # recomputed; some files have it
    back = llamagen_from_published(published, sample_size=4, num_attention_heads=2)
    assert settings(back) | {"intermediate_size": None} == settings(model)
    assert back.config.intermediate_size == 256
    ours = model.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in back.state_dict().items())


def test_foreign_weights_are_refused():
    published = published_llamagen_weights(tiny())
    with pytest.raises(ValueError, match="is not a weight of LlamaGen"):
        llamagen_from_published(published | {"spe_tok_embeddings.weight": torch.zeros(1)}, 4, 2)
    with pytest.raises(ValueError, match="No published LlamaGen has hidden size 32"):
        llamagen_from_published(published, 4)
    del published["norm.weight"]
    with pytest.raises(ValueError, match=r"do not fit[\s\S]*norm.weight"):
        llamagen_from_published(published, 4, 2)
    with pytest.raises(ValueError, match=r"'token_embedding.weight' is missing"):
        llamagen_from_published({"norm.weight": torch.zeros(4)}, 4, 2)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="exactly one of caption_channels"):
        tiny(num_classes=3)
    with pytest.raises(ValueError, match="multiple of 4"):
        tiny(hidden_size=34)


# Parameters of the class-conditional models, as published (FoundationVision/LlamaGen, millions).
@pytest.mark.parametrize(
    ("name", "millions"),
    [("B", 111), ("L", 343), ("XL", 775), ("XXL", 1411), ("XXXL", 3893), ("1B", 1200), ("3B", 3097), ("7B", 6615)],
)
def test_published_sizes(name, millions):
    layers, heads, hidden_size = LLAMAGEN_SIZES[name]
    with torch.device("meta"):
        model = LlamaGenTransformer(layers, heads, hidden_size, caption_channels=None, num_classes=1000)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=2e-3)


def test_full_size_key_schema_of_the_text_model():
    with torch.device("meta"):
        model = LlamaGenTransformer(sample_size=32)
    shapes = {name: tuple(tensor.shape) for name, tensor in published_llamagen_weights(model).items()}
    assert len(shapes) == 36 * 7 + 6
    assert shapes["tok_embeddings.weight"] == shapes["output.weight"] == (16384, 1280)
    assert shapes["cls_embedding.cap_proj.fc1.weight"] == (1280, 2048)
    assert shapes["cls_embedding.cap_proj.fc2.weight"] == (1280, 1280)
    assert shapes["cls_embedding.uncond_embedding"] == (120, 2048)
    assert shapes["layers.35.attention.wqkv.weight"] == (3840, 1280)
    assert shapes["layers.35.attention.wo.weight"] == (1280, 1280)
    assert shapes["layers.35.feed_forward.w1.weight"] == shapes["layers.35.feed_forward.w3.weight"] == (3584, 1280)
    assert shapes["layers.35.feed_forward.w2.weight"] == (1280, 3584)
    assert shapes["layers.0.attention_norm.weight"] == shapes["layers.0.ffn_norm.weight"] == (1280,)
    restored = llamagen_from_published(published_llamagen_weights(model), 32)
    assert settings(restored) | {"intermediate_size": None} == settings(model)


@pytest.mark.parametrize(
    "option", [{"parallel_tokens": 0}, {"num_layers": None}, {"num_classes": 0}, {"rope_theta": -1}, {"norm_eps": "x"}]
)
def test_a_size_that_is_none_is_named(option):
    [name] = option
    with pytest.raises(ValueError, match=f"^{name} must be "), torch.device("meta"):
        LlamaGenTransformer(**{"num_layers": 1} | option)
