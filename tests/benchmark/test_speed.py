"""The benchmark's method on a toy: pairing, counting, and leaving the pipeline as it was."""

import json

import pytest
import torch

from sjd_pipelines import (
    AutoregressiveScheduler,
    EagleScheduler,
    RevisedJacobiScheduler,
    SeededJacobiScheduler,
    SJDScheduler,
)
from sjd_pipelines.benchmark.contenders import Contender
from sjd_pipelines.benchmark.drawing import benchmark_scenes
from sjd_pipelines.benchmark.journal import Journal
from sjd_pipelines.benchmark.library import library_tokens
from sjd_pipelines.benchmark.loop_seconds import measure_loop
from sjd_pipelines.benchmark.speed import SpeedConfig, measure_speed

TOKENS = 16
SAMPLING = {"guidance_scale": 3.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def contenders():
    return (Contender("seeded-jacobi", SeededJacobiScheduler(window=4)), Contender("sjd", SJDScheduler(window=4)))


def test_report(pipe):
    scheduler = pipe.scheduler
    calls = []
    config = SpeedConfig(
        contenders(), "toy", prompts=3, repeats=2, batch_size=2, library=True, fidelity=True, sampling=SAMPLING
    )
    report = measure_speed(pipe, config, lambda done, total: calls.append((done, total)))
    assert pipe.scheduler is scheduler
    assert calls == [(count, 20) for count in range(1, 21)]  # 4 contenders x (warm-up + 2 repeats x 2 batches)
    sequential, library, seeded, sjd = report.results
    assert [result.name for result in report.results] == ["autoregressive", "library", "seeded-jacobi", "sjd"]
    assert [result.label for result in report.results] == ["exact", "lossless", "exact", "lossless"]
    assert [result.window for result in report.results] == [0, None, 4, 4]
    assert sequential.passes == library.passes == TOKENS
    assert sequential.speedup.minimum == sequential.speedup.maximum == library.library_speedup.median == 1
    assert library.overhead is library.drafting is None
    for result in (sequential, seeded, sjd):
        assert result.tokens == TOKENS
        assert result.compression == TOKENS / result.passes >= 1
        assert len(result.samples) == 4
        assert 0 == result.drafting < result.overhead < 1
        assert result.fidelity["n"] == 3
    ratios = [slow / fast for slow, fast in zip(sequential.samples, sjd.samples)]
    assert (sjd.speedup.minimum, sjd.speedup.maximum) == (min(ratios), max(ratios))
    assert json.loads(json.dumps(report.to_json()))["method"]["sampling"] == SAMPLING


def test_an_interrupted_benchmark_goes_on_where_it_was(pipe):
    config = SpeedConfig(contenders(), "toy", prompts=2, repeats=2, fidelity=True, sampling=SAMPLING)
    files = []

    def save_and_stop(journal):
        files.append(json.dumps(journal))
        if len(files) == 8:  # the third contender's first runs
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_speed(pipe, config, journal=Journal(save=save_and_stop))
    saved, added, calls = json.loads(files[-1]), [], []
    report = measure_speed(
        pipe, config, lambda *counts: calls.append(counts), Journal(saved, lambda journal: added.append(len(added)))
    )
    runs = 3 * (1 + 2 * 2)
    assert calls == [(done, runs) for done in range(1, runs + 1)]
    assert len(added) == runs + 1 - 8  # and the pixels
    kept = [
        value["seconds"] for key, value in saved["measurements"].items() if "autoregressive" in key and "repeat" in key
    ]
    assert report.results[0].samples[: len(kept)] == kept
    assert all(len(result.samples) == 4 for result in report.results)
    other = SpeedConfig(contenders(), "toy", prompts=2, repeats=3, fidelity=True, sampling=SAMPLING)
    with pytest.raises(ValueError, match=r"other settings: method\.repeats"):
        measure_speed(pipe, other, journal=Journal(saved))


def test_transformer_calls_are_timed(pipe):
    seconds = measure_loop(pipe, AutoregressiveScheduler(), ["a red dog"], 0, {})
    assert len(seconds.transformer) == 2 * TOKENS  # layers and head of every pass; the prompt's is not among them
    assert seconds.drafting == []
    assert 0 < sum(seconds.transformer) < seconds.loop
    pipe.scheduler = AutoregressiveScheduler()
    plain = pipe("a red dog", generator=torch.Generator().manual_seed(0), output_type="latent")
    assert torch.equal(seconds.tokens, plain.tokens)


@pytest.mark.parametrize("scheduler", [RevisedJacobiScheduler(window=4), EagleScheduler(window=4)])
def test_a_network_that_drafts_is_timed_apart(pipe, scheduler):
    seconds = measure_loop(pipe, scheduler, ["a red dog"], 0, {})
    assert len(seconds.transformer) >= 2 * seconds.passes  # a draft model's head is the target's
    assert 0 < sum(seconds.drafting) < seconds.loop - sum(seconds.transformer)


def test_the_library_draws_the_same_law_and_leaves_the_global_generator_alone(pipe):
    state = torch.random.get_rng_state()
    prompts = ["a red dog", "two blue cat on a red house"]
    greedy = library_tokens(pipe, prompts, 0, **SAMPLING | {"temperature": 0})
    sampled = [library_tokens(pipe, prompts, seed, **SAMPLING) for seed in (1, 1, 2)]
    assert torch.equal(state, torch.random.get_rng_state())
    pipe.scheduler = AutoregressiveScheduler()
    assert torch.equal(greedy, pipe(prompts, output_type="latent", **SAMPLING | {"temperature": 0}).tokens)
    assert torch.equal(sampled[0], sampled[1])
    assert not torch.equal(sampled[0], sampled[2])


def test_the_library_needs_guidance(pipe):
    config = SpeedConfig((), "toy", library=True, sampling={"guidance_scale": 1.0})
    with pytest.raises(ValueError, match=r"guidance above 1 only, got guidance_scale 1\.0\."):
        measure_speed(pipe, config)


def test_scenes_are_of_every_kind_and_the_same_every_time(pipe):
    scenes = benchmark_scenes(pipe, 4, seed=1)
    assert [scene.kind for _, scene in scenes] == ["single", "count", "relation", "single"]
    assert scenes == benchmark_scenes(pipe, 4, seed=1)
    assert len({caption for caption, _ in scenes}) == 4
