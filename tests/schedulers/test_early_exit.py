"""Early exit: the state after so many iterations, exact where it exits too late to matter, and its other settings."""

import pytest
import torch

from sjd_pipelines import EarlyExitScheduler, SeededJacobiScheduler
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.decoding import Sampling
from sjd_pipelines.distillation.trajectories import draw_trajectory

PROMPTS, SEEDS, SIDE = ["a red dog", "two cat on a house"], [3, 4], 6
OPTIONS = {"seeds": SEEDS, "guidance_scale": 5.0, "output_type": "latent"}


@pytest.fixture(scope="module")
def sharp(device):
    pipe = toy_pipeline(SIDE, codebook_size=16, logit_scale=3.0).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe, **settings):
    return pipe(PROMPTS, **OPTIONS, scheduler=EarlyExitScheduler(**settings))


@pytest.mark.parametrize("iterations", [1, 2, 4, 7])
def test_a_block_is_given_out_after_a_fixed_number_of_iterations(sharp, iterations):
    """One block for the whole picture, as in the paper: what the exact iteration has made of it by then."""
    count = SIDE * SIDE
    way = draw_trajectory(sharp, PROMPTS, SEEDS, Sampling(5.0), count)
    expected = way.final.clone()
    for row, front in enumerate(way.fronts[iterations].tolist()):
        expected[row, front:] = way.drafts[iterations, row, : count - front]
    output = drawn(sharp, window=count, block=count, exit_after=iterations)
    assert torch.equal(output.tokens.cpu(), expected)
    assert not torch.equal(output.tokens.cpu(), way.final)
    assert output.statistics.forward_passes == [iterations, iterations]
    assert ((output.statistics.acceptance_map >= 0) & (output.statistics.acceptance_map < iterations)).all()


@pytest.mark.parametrize("settings", [{}, {"block": 4}, {"block": 8}])
def test_an_exit_that_comes_late_is_exact(sharp, settings):
    exact = sharp(PROMPTS, **OPTIONS, scheduler=SeededJacobiScheduler(window=8))
    late = drawn(sharp, window=8, exit_after=100, **settings)
    assert torch.equal(late.tokens, exact.tokens)
    assert late.statistics.forward_passes == exact.statistics.forward_passes
    early = drawn(sharp, window=8, exit_after=2, **settings)
    assert not torch.equal(early.tokens, exact.tokens)
    assert max(early.statistics.forward_passes) < min(exact.statistics.forward_passes)


def test_a_margin_keeps_what_lost_narrowly(sharp):
    exact = sharp(PROMPTS, **OPTIONS, scheduler=SeededJacobiScheduler(window=8))
    passes = []
    for margin in (0.0, 2.0, 100.0):
        output = drawn(sharp, window=8, exit_after=100, margin=margin)
        assert torch.equal(output.tokens, exact.tokens) == (margin == 0)
        passes.append(sum(output.statistics.forward_passes))
    assert passes[0] > passes[1] > passes[2]


def test_at_temperature_0_a_margin_keeps_nothing(sharp):
    greedy = {"temperature": 0, "output_type": "latent", "seeds": SEEDS}
    without, with_margin = (
        sharp(PROMPTS, **greedy, scheduler=EarlyExitScheduler(window=8, exit_after=100, margin=margin)).tokens
        for margin in (0.0, 5.0)
    )
    assert torch.equal(without, with_margin)


def test_a_block_must_fit_into_the_window():
    with pytest.raises(ValueError, match="block must not be larger than the window, 8, got 9"):
        EarlyExitScheduler(window=8, block=9)
