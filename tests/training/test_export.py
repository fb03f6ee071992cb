"""The pixel side, and the exported folder: a checkpoint plain transformers can load and run."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import JanusForConditionalGeneration, JanusProcessor

from sjd_pipelines.emoji.captions import BOI, encode_caption, word_list, words_by_kind
from sjd_pipelines.training import export as exporting
from sjd_pipelines.training.model_card import model_card
from sjd_pipelines.training.pixels import PixelRecipe, picture_batch, reconstruction_loss, train_pixels
from sjd_pipelines.training.transformer import (
    AVERAGE_FILE,
    LOG_FILE,
    TransformerRecipe,
    train_transformer,
    trained_parameters,
)


def test_the_bundled_words_are_those_of_the_captions(exported):
    for folder in (exported, exporting.BUNDLED):
        kinds = json.loads((folder / "words.json").read_text())
        assert kinds == words_by_kind()
        told = re.findall(r"\w+", " ".join(word for words in kinds.values() for word in words))
        assert set(told) <= set(word_list())


def test_picture_batches():
    tokens, pixels = picture_batch(np.random.default_rng(0), 3)
    assert tokens.shape == (3, 256)
    assert pixels.shape == (3, 3, 128, 128)
    assert pixels.min() >= -1
    assert pixels.max() <= 1


def test_reconstruction_loss_is_zero_only_for_equal_pictures():
    _, pixels = picture_batch(np.random.default_rng(0), 2)
    assert reconstruction_loss(pixels, pixels) == 0
    assert reconstruction_loss(pixels + 0.1, pixels) == pytest.approx(0.1 + 0.01, abs=1e-4)


def pixel_recipe(folder, side):
    return PixelRecipe(folder, side, batch_size=2, warmup=2, decay_minutes=0, log_every=2, max_steps=4)


def test_pixel_training(tmp_path, tiny_model):
    with pytest.raises(FileNotFoundError, match="decoder"):
        train_pixels(pixel_recipe(tmp_path, "encoder"), tiny_model)
    decoder = train_pixels(pixel_recipe(tmp_path, "decoder"), tiny_model)
    assert decoder["step"] == 4
    assert decoder["psnr"] > 0
    encoder = train_pixels(pixel_recipe(tmp_path, "encoder"), tiny_model)
    assert 0 <= encoder["accuracy"] <= 1
    assert len(list(tmp_path.glob("pixel_*.safetensors"))) == 2


@pytest.fixture
def exported(tmp_path, tiny_model, monkeypatch):
    save_file(trained_parameters(tiny_model), tmp_path / AVERAGE_FILE)
    monkeypatch.setattr(exporting, "build_config", lambda: tiny_model.config)
    scores = {"single": {"n": 2, "object": 1.0, "all": 0.5}}
    facts = {"training": {"images": 10, "steps": 5, "seconds": 60.0}, "scores": scores}
    return exporting.export(tmp_path, tmp_path / "bundle", facts)


def test_export_loads_with_plain_transformers(exported, tiny_model):
    model = JanusForConditionalGeneration.from_pretrained(exported, dtype=torch.float32)
    for name, parameter in trained_parameters(tiny_model).items():
        assert torch.allclose(dict(model.named_parameters())[name], parameter, atol=1e-3), name
    processor = JanusProcessor.from_pretrained(exported)
    message = [{"role": "user", "content": [{"type": "text", "text": "a dog"}]}]
    text = processor.apply_chat_template(message, add_generation_prompt=True)
    inputs = processor(text=[text], generation_mode="image", return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == encode_caption("a dog")
    assert model.generation_config.generation_kwargs["boi_token_id"] == BOI
    tokens = model.generate(**inputs, generation_mode="image", guidance_scale=2.0, do_sample=False)
    assert tokens.shape == (1, 256)
    assert model.decode_image_tokens(tokens).shape == (1, 128, 128, 3)


def test_export_says_what_was_measured_and_replaces_the_old_folder(exported, tmp_path):
    assert json.loads((exported / exporting.RESULTS_FILE).read_text())["training"]["images"] == 10
    card = (exported / "README.md").read_text()
    assert "SIL" in card
    assert "| single | 2 | 100.0 % | - | - | - | 50.0 % |" in card
    (exported / "drafter").mkdir()
    (exported / "drafter" / "config.json").write_text("{}")
    exporting.export(tmp_path, exported)  # keeps the results and the draft model it finds
    assert (exported / "drafter" / "config.json").read_text() == "{}"
    assert json.loads((exported / exporting.RESULTS_FILE).read_text())["training"]["images"] == 10
    assert not list(tmp_path.glob("bundle.*"))


def test_card_claims_nothing_unmeasured():
    assert "Nothing yet." in model_card({}, 1000, {"temperature": 1.0})


def test_a_run_restored_from_an_export_trains_on(exported, tmp_path, tiny_model):
    folder = exporting.restore(tmp_path / "again", exported)
    saved = load_file(folder / AVERAGE_FILE)
    for name, parameter in trained_parameters(tiny_model).items():
        assert torch.allclose(saved[name], parameter, atol=1e-3), name
    with pytest.raises(FileExistsError, match="already holds a run"):
        exporting.restore(folder, exported)
    recipe = TransformerRecipe(folder, batch_size=2, probe_rows=2, max_steps=2)
    assert not train_transformer(recipe, tiny_model)
    entry = json.loads((folder / LOG_FILE).read_text().splitlines()[-1])
    assert entry["step"] == 5 + 2
    assert entry["images"] == 10 + 8
    assert entry["started"] == 5  # a new optimizer
    decoder = load_file(folder / "pixel_decoder.safetensors")
    assert torch.allclose(
        decoder["decoder.conv_in.weight"], tiny_model.model.vqmodel.decoder.conv_in.weight, atol=1e-3
    )
