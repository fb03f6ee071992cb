"""Transformer training: the generation path, the batches, and a run that stops, resumes and learns."""

import json
import math
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from sjd_pipelines.emoji.captions import BOI, BOS, PAD, VOCABULARY, encode_caption
from sjd_pipelines.emoji.scenes import RELATIONS
from sjd_pipelines.learning.optimization import Optimizer, rate_factor, update_average
from sjd_pipelines.training.architecture import (
    build_config,
    build_model,
    image_logits,
    row_rope_theta,
    unconditional_prompt,
)
from sjd_pipelines.training.attention import causal
from sjd_pipelines.training.auxiliary import SceneHeads
from sjd_pipelines.training.batches import MIXED, draw_batch
from sjd_pipelines.training.objective import LOSSES, training_losses
from sjd_pipelines.training.phases import Phase
from sjd_pipelines.training.probes import probe
from sjd_pipelines.training.transformer import (
    AVERAGE_FILE,
    LOG_FILE,
    ON_CUDA,
    STATE_FILE,
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
    prompt, tokens, *_ = draw_batch(np.random.default_rng(0), MIXED, 2)
    with torch.no_grad():
        logits = image_logits(tiny_model, prompt, tokens)
        words = tiny_model.get_input_embeddings()(prompt)
        seen = tiny_model.prepare_embeddings_for_image_generation(tokens[:, :5])
        hidden = tiny_model.model.language_model(inputs_embeds=torch.cat([words, seen], 1)).last_hidden_state
        step = tiny_model.model.generation_head(hidden[:, -1])
    assert logits.shape == (2, 256, 2048)
    assert torch.allclose(logits[:, 5], step, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "wrong"), [("single", "object"), ("single", "colour"), ("count", "count"), *zip(RELATIONS, RELATIONS)]
)
def test_probes_differ_in_one_respect(name, wrong):
    rows = probe(name, 6)
    assert rows["truth"].shape == rows[wrong].shape
    changed = rows["truth"] != rows[wrong]
    assert changed.any(1).all()
    assert rows["tokens"].shape == (6, 256)
    if name in RELATIONS:
        assert (rows["truth"] == VOCABULARY[name]).any(1).all()
        assert torch.equal(rows["truth"].sort(1)[0][~changed.any(1)], rows[wrong].sort(1)[0][~changed.any(1)])


def test_blockwise_attention_is_causal_attention():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 13, 8, generator=generator, requires_grad=True) for _ in range(3))
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3).transpose(1, 2)
    result, _ = causal(None, query, key, value, None, scaling=0.3)
    assert torch.allclose(result, expected, atol=1e-6)
    for mine, theirs in zip(
        *(torch.autograd.grad(out.square().sum(), (query, key, value)) for out in (result, expected))
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_rate_warms_up_and_decays():
    assert rate_factor(0, 10, 1000, 100) == pytest.approx(0.1)
    assert rate_factor(50, 10, 1000, 100) == 1
    assert rate_factor(50, 10, 25, 100) == pytest.approx(0.25)
    assert rate_factor(50, 10, -1, 100) == 0


def test_every_trained_parameter_has_one_optimizer(tiny_model):
    named = trained_parameters(tiny_model)
    optimizer = Optimizer(named, 1e-3, 1e-3)
    groups = [group for part, _ in optimizer.parts.values() for group in part.param_groups]
    owned = [p.data_ptr() for group in groups for p in group["params"]]  # Muon's twins share memory
    assert sorted(owned) == sorted(p.data_ptr() for p in named.values())
    assert all("vqmodel" not in name for name in named)


def test_average_forgets_the_start():
    parameter, average = torch.nn.Parameter(torch.ones(3)), [torch.full((3,), 100.0)]
    for step in range(200):
        update_average(average, [parameter], step, decay=0.9)
    assert torch.allclose(average[0], torch.ones(3), atol=1e-3)


PHASES = (Phase(16, (0.6, 0.2, 0.2)), Phase(24, (0.2, 0.2, 0.6), rates=(1.0, 0.0)))


def recipe(folder, **changes):
    options = {"batch_size": 2, "warmup": 2, "log_every": 2, "probe_every": 4, "probe_rows": 2}
    return TransformerRecipe(folder, **options | changes)


def log_of(folder):
    return [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


def test_a_gpu_takes_larger_steps_and_options_win(tmp_path):
    assert TransformerRecipe.on("cpu", folder=tmp_path) == TransformerRecipe(tmp_path)
    recipe = TransformerRecipe.on("cuda:1", folder=tmp_path, workers=3)
    assert (recipe.device, recipe.batch_size, recipe.workers) == ("cuda:1", ON_CUDA["batch_size"], 3)
    assert recipe.scale > 1


def test_training_goes_through_its_phases_and_learns(tmp_path, tiny_model):
    assert train_transformer(recipe(tmp_path), tiny_model, PHASES)
    log = log_of(tmp_path)
    assert (log[-1]["step"], log[-1]["images"]) == (10, 40)
    assert log[-1]["single_loss"] < log[1]["single_loss"]
    assert [entry["rate"] for entry in log[:-1]] == pytest.approx([1, 1, 2 / 3, 1 / 3, 0])
    assert {"object_gap", "colour_gap", "count_gap", *(f"{name}_gap" for name in RELATIONS)} <= set(log[-1])
    assert set(LOSSES) <= set(log[0])
    assert set(load_file(tmp_path / AVERAGE_FILE)) == set(trained_parameters(tiny_model))  # no thrown-away heads
    assert not list(tmp_path.glob("*.tmp"))
    assert train_transformer(recipe(tmp_path), tiny_model, PHASES)  # nothing left to do
    assert len(log_of(tmp_path)) == len(log)


def test_a_stopped_run_ends_as_an_undisturbed_one(tmp_path, tiny_config):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train_transformer(recipe(whole), build_model(tiny_config), PHASES)
    assert not train_transformer(recipe(broken, max_steps=5), build_model(tiny_config), PHASES)
    assert not train_transformer(recipe(broken, max_steps=2), build_model(tiny_config, seed=1), PHASES)
    assert train_transformer(recipe(broken), build_model(tiny_config, seed=2), PHASES)
    first, second = (load_file(folder / AVERAGE_FILE) for folder in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)
    states = [torch.load(folder / STATE_FILE, weights_only=True)["weights"] for folder in (whole, broken)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert log_of(whole)[-1]["right_gap"] == log_of(broken)[-1]["right_gap"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_and_saves(number, tmp_path, tiny_model, monkeypatch):
    import sjd_pipelines.training.transformer as training

    def raise_signal(path, entry):
        signal.raise_signal(number)
        append_log(path, entry)

    append_log = training.append_log
    monkeypatch.setattr(training, "append_log", raise_signal)
    before = signal.getsignal(number)
    assert not train_transformer(recipe(tmp_path), tiny_model, PHASES)
    assert signal.getsignal(number) is before
    assert log_of(tmp_path)[-1]["step"] == 3  # the step after the first log entry is the last
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["progress"]["step"] == 3


def test_drawing_ahead_changes_nothing(tmp_path, tiny_config):
    for workers in (0, 2):
        train_transformer(
            recipe(tmp_path / str(workers), workers=workers, max_steps=4), build_model(tiny_config), PHASES
        )
    first, second = (load_file(tmp_path / str(workers) / AVERAGE_FILE) for workers in (0, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_term_of_the_loss_falls(tiny_config):
    model = build_model(tiny_config)
    heads, phase = SceneHeads(tiny_config.text_config.hidden_size), Phase(1, (0.2, 0.2, 0.6))
    named = trained_parameters(model) | {f"scene_heads.{name}": p for name, p in heads.named_parameters()}
    optimizer = Optimizer(named, 1e-2, 1e-2)
    rng = np.random.default_rng(1)
    batch = next(rows for rows in (draw_batch(rng, phase.mix, 8) for _ in range(50)) if (rows.part >= 0).sum() > 3)
    reports = []
    for _ in range(12):
        losses, report = training_losses(model, heads, batch)
        (losses @ torch.tensor(phase.weights)).backward()
        optimizer.step(1.0)
        model.zero_grad()
        heads.zero_grad()
        reports.append(report)
    assert (reports[-1] < 0.97 * reports[0]).all(), dict(zip(LOSSES, reports[-1] / reports[0]))


def test_training_leaves_the_global_random_state_alone(tmp_path, tiny_model):
    before = torch.get_rng_state()
    train_transformer(recipe(tmp_path, max_steps=2), tiny_model, PHASES)
    assert torch.equal(torch.get_rng_state(), before)
