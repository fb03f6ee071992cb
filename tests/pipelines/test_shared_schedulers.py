"""A scheduler is settings: one object decodes several models at once, and no run leaves anything in it."""

import pickle
import threading

import pytest
import torch

from sjd_pipelines import SCHEDULERS, GroupedSJDScheduler, LanternEagleScheduler, LanternScheduler
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.schedulers.adaptive_window import takes_auto

PROMPTS = ["a red dog", "two blue cat on a green house"]
RELAXED = {
    "gsd": GroupedSJDScheduler(window=5, gap=0.6, distance=0.9),
    "lantern": LanternScheduler(window=5, relaxation=6.0, neighbours=3),
    "lantern-release": LanternScheduler(window=5, relaxation=6.0, neighbours=3, residual="release"),
    "lantern-eagle": LanternEagleScheduler(window=5, depth=3, relaxation=6.0, neighbours=3),
}


@pytest.fixture(scope="module")
def pipes():
    """Two models with different codebooks, also in size."""
    pipes = [toy_pipeline(4, size, seed) for size, seed in ((16, 0), (24, 1))]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
    return pipes


def draw(pipe, scheduler, **options):
    sampling = {"guidance_scale": 2.0, "output_type": "latent", "seeds": [3, 4]}
    return pipe(PROMPTS, scheduler=scheduler, **sampling, **options).tokens


def alone(pipe, name):
    return draw(pipe, type(RELAXED[name]).from_config(RELAXED[name].config))


@pytest.mark.parametrize("name", RELAXED)
def test_one_scheduler_decodes_two_models_one_inside_the_other(pipes, name):
    outer, inner = pipes
    drawn = []

    def draw_another(pipe, index, *_):
        if index in (0, 3):
            drawn.append(draw(inner, RELAXED[name]))

    tokens = draw(outer, RELAXED[name], callback_on_step_end=draw_another)
    assert torch.equal(tokens, alone(outer, name))
    assert all(torch.equal(one, alone(inner, name)) for one in drawn)
    assert len(drawn) == 2


@pytest.mark.parametrize("name", RELAXED)
def test_one_scheduler_decodes_two_models_in_two_threads(pipes, name):
    barrier, drawn = threading.Barrier(2), {}

    def take_turns(pipe, *_):
        try:
            barrier.wait(timeout=60)
        except threading.BrokenBarrierError:  # the other one has ended
            return

    def run(index):
        try:
            drawn[index] = draw(pipes[index], RELAXED[name], callback_on_step_end=take_turns)
        finally:
            barrier.abort()

    threads = [threading.Thread(target=run, args=[index]) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, pipe in enumerate(pipes):
        assert torch.equal(drawn[index], alone(pipe, name))


AT_DEFAULTS = [(name, {}) for name, cls in SCHEDULERS.items() if not cls.parallel]
AUTO = [(name, {"window": "auto"}) for name, cls in SCHEDULERS.items() if takes_auto(cls)]


@pytest.mark.parametrize(("name", "settings"), AT_DEFAULTS + AUTO)
def test_a_run_leaves_nothing_in_its_scheduler(pipes, name, settings):
    scheduler = SCHEDULERS[name](**settings)
    before = {key: pickle.dumps(value) for key, value in vars(scheduler).items()}
    draw(pipes[0], scheduler)
    assert {key: pickle.dumps(value) for key, value in vars(scheduler).items()} == before


@pytest.mark.parametrize("name", RELAXED)
def test_a_codebook_of_one_entry(name):
    pipe = toy_pipeline(3, 1)
    pipe.set_progress_bar_config(disable=True)
    assert not draw(pipe, RELAXED[name]).any()
