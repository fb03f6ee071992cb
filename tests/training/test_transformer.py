"""Transformer training: the generation path, the batches, and a run that stops, resumes and learns."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from sjd_pipelines.emoji.captions import BOI, BOS, PAD, encode_caption
from sjd_pipelines.training.architecture import build_config, image_logits, row_rope_theta, unconditional_prompt
from sjd_pipelines.training.batches import MIXED, SINGLES_ONLY, BatchStream, probe
from sjd_pipelines.training.optimization import Optimizer, rate_factor, update_average
from sjd_pipelines.training.transformer import (
    AVERAGE_FILE,
    LOG_FILE,
    TransformerRecipe,
    train_transformer,
    trained_parameters,
)


def test_one_rope_frequency_turns_once_per_row():
    config = build_config()
    dimension = config.text_config.hidden_size // config.text_config.num_attention_heads
    frequencies = row_rope_theta(dimension) ** (-torch.arange(0, dimension, 2) / dimension)
    assert math.isclose(float((frequencies - 2 * math.pi / 16).abs().min()), 0, abs_tol=1e-6)


def test_unconditional_prompt_keeps_the_frame():
    prompt = torch.tensor([encode_caption("a dog on a red background")])
    expected = torch.full_like(prompt, PAD)
    expected[0, 0], expected[0, -1] = BOS, BOI
    assert torch.equal(unconditional_prompt(prompt), expected)


def test_teacher_forcing_is_the_generation_path(tiny_model):
    """Logits of whole pictures equal those of the library's token-by-token generation inputs."""
    tiny_model.eval()
    prompt, tokens, _ = BatchStream(2, seed=0).next(SINGLES_ONLY)
    with torch.no_grad():
        logits = image_logits(tiny_model, prompt, tokens)
        words = tiny_model.get_input_embeddings()(prompt)
        seen = tiny_model.prepare_embeddings_for_image_generation(tokens[:, :5])
        hidden = tiny_model.model.language_model(inputs_embeds=torch.cat([words, seen], 1)).last_hidden_state
        step = tiny_model.model.generation_head(hidden[:, -1])
    assert logits.shape == (2, 256, 2048)
    assert torch.allclose(logits[:, 5], step, atol=1e-5)


def test_batches_have_one_caption_length_and_drop_some_captions():
    stream = BatchStream(8, seed=0, caption_dropout=0.5)
    dropped = 0
    for _ in range(20):
        prompt, tokens, light = stream.next(MIXED)
        assert tokens.shape == light.shape == (8, 256)
        assert (prompt[:, 0] == BOS).all()
        assert (prompt[:, -1] == BOI).all()
        dropped += int((prompt[:, 1] == PAD).sum())
    assert 40 < dropped < 120


def test_streams_repeat_by_seed():
    first, again, other = (BatchStream(4, seed=seed).next(MIXED)[1] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("kind", "wrong"), [("single", "object"), ("count", "count"), ("relation", "relation")])
def test_probes_differ_in_one_respect(kind, wrong):
    rows = probe(kind, 6, seed=0)
    assert rows["right"].shape == rows[wrong].shape
    assert (rows["right"] != rows[wrong]).any(1).all()
    assert rows["tokens"].shape == (6, 256)


def test_rate_warms_up_and_decays():
    assert rate_factor(0, 10, 1000, 100) == pytest.approx(0.1)
    assert rate_factor(50, 10, 1000, 100) == 1
    assert rate_factor(50, 10, 25, 100) == pytest.approx(0.25)
    assert rate_factor(50, 10, -1, 100) == 0


def test_every_trained_parameter_has_one_optimizer(tiny_model):
    named = trained_parameters(tiny_model)
    optimizer = Optimizer(named, 1e-3, 1e-3)
    groups = [*optimizer.muon.param_groups, *optimizer.adam.param_groups]
    owned = [p.data_ptr() for group in groups for p in group["params"]]  # Muon's twins share memory
    assert sorted(owned) == sorted(p.data_ptr() for p in named.values())
    assert all("vqmodel" not in name for name in named)


def test_average_forgets_the_start():
    parameter, average = torch.nn.Parameter(torch.ones(3)), [torch.full((3,), 100.0)]
    for step in range(200):
        update_average(average, [parameter], step, decay=0.9)
    assert torch.allclose(average[0], torch.ones(3), atol=1e-3)


def recipe(folder, **changes):
    options = {"minutes": 5, "decay_minutes": 0, "batch_size": 2, "warmup": 2, "log_every": 2, "probe_every": 4}
    return TransformerRecipe(folder, probe_rows=4, max_steps=6, singles_first=8, **options | changes)


def test_training_learns_stops_and_resumes(tmp_path, tiny_model):
    first = train_transformer(recipe(tmp_path), tiny_model)
    assert first["step"] == 6
    assert first["images"] == 12
    weights = load_file(tmp_path / AVERAGE_FILE)
    assert set(weights) == set(trained_parameters(tiny_model))
    second = train_transformer(recipe(tmp_path), tiny_model)
    assert second["step"] == 12
    assert second["single_loss"] < first["single_loss"]
    log = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert {"object_gap", "colour_gap", "count_gap", "relation_gap"} <= set(log[-1])
    assert not list(tmp_path.glob("*.tmp"))
