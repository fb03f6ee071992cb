"""`window="auto"` biases nothing, and is as fast as the best window."""

import itertools

import pytest
import torch

from sjd_pipelines import (
    SCHEDULERS,
    AutoregressiveScheduler,
    CoupledSJDScheduler,
    SeededJacobiScheduler,
    SJDPACScheduler,
    SJDScheduler,
)
from sjd_pipelines.benchmark.exactness import enumerable_pipeline, judge
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.schedulers.adaptive_window import START, WindowPolicy, takes_auto

AUTO = [name for name, cls in SCHEDULERS.items() if takes_auto(cls)]
PICTURES = 10
FIXED = (1, 2, 4, 8, 16, 32, 64)
SAMPLES = 6000


@pytest.fixture(scope="module")
def large():
    """16 x 16 tokens."""
    pipe = toy_pipeline(side=16, codebook_size=32, logit_scale=1.5, layers=1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def toy():
    return enumerable_pipeline()


def draw(pipe, scheduler, seeds):
    pipe.scheduler = scheduler
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe("a red dog", None, num_images_per_prompt=len(seeds), generator=generators, guidance_scale=2.0,
                output_type="latent")  # fmt: skip


def processor(window):
    """Milliseconds of a pass where every slot costs: as measured for a small model on two cores."""
    return 2.8 + 0.17 * (window + 1)


def weak_processor(window):
    return 1.0 + 0.5 * (window + 1)


def accelerator(window):
    """Milliseconds of a pass where 64 slots take the time of one."""
    return 10.0 * max(1.0, (window + 1) / 64)


@pytest.fixture(scope="module")
def passes(large):
    """Windows of every pass of every picture, by fixed window: pictures do not depend on their batch."""
    tokens = large.image_layout(None, None).num_tokens
    windows = {}
    for window in FIXED:
        committed = draw(large, SeededJacobiScheduler(window=window), range(PICTURES)).statistics.committed_per_pass
        fronts = [itertools.accumulate([0, *row[:-1]]) for row in committed]
        windows[window] = [min(window, tokens - front) for picture in fronts for front in picture]
    return windows


@pytest.mark.parametrize("cost", [processor, weak_processor, accelerator], ids=lambda cost: cost.__name__)
def test_auto_is_as_fast_as_the_best_window_what_it_learns_included(large, passes, cost):
    scheduler = SeededJacobiScheduler(window="auto")
    scheduler.window_policy = WindowPolicy(pass_seconds=cost)
    seconds = 0.0
    for seed in range(PICTURES):
        statistics = draw(large, scheduler, [seed]).statistics
        assert len(statistics.windows) == statistics.forward_passes[0]
        seconds += sum(map(cost, statistics.windows))
    fixed = {window: sum(map(cost, windows)) for window, windows in passes.items()}
    assert seconds <= 1.05 * min(fixed.values()), (seconds, fixed)
    assert max(fixed.values()) > 1.5 * min(fixed.values())  # there is something to choose


class Erratic(WindowPolicy):
    """Another window in every pass, whatever happens."""

    def choose(self):
        self.turn = getattr(self, "turn", 0) + 1
        return (3, 1, 4, 2, 1, 7)[self.turn % 6]


@pytest.mark.parametrize("name", AUTO)
def test_exact_and_greedy_schedulers_draw_the_sequential_picture(large, name):
    scheduler = SCHEDULERS[name](window="auto")
    scheduler.window_policy = Erratic()
    for temperature in (0.0, 1.0) if scheduler.label == "exact" else (0.0,):
        sampling = {"temperature": temperature, "guidance_scale": 2.0, "output_type": "latent"}
        pictures = []
        for one in (AutoregressiveScheduler(), scheduler):
            large.scheduler = one
            seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
            pictures.append(large(["a red dog", "two cat on a car"], generator=seeds, **sampling))
        assert torch.equal(pictures[0].tokens, pictures[1].tokens)
        assert set(pictures[1].statistics.windows) >= {1, 2, 3, 4, 7}


@pytest.mark.parametrize(
    "scheduler",
    [
        SJDScheduler(window="auto"),
        CoupledSJDScheduler(window="auto"),
        CoupledSJDScheduler(window="auto", coupling="gumbel"),
        SJDPACScheduler(window="auto", branches=2),
    ],
    ids=lambda scheduler: f"{type(scheduler).__name__}-{scheduler.config.get('coupling', '')}",
)
def test_lossless_schedulers_keep_the_law_at_changing_windows(toy, scheduler):
    scheduler.window_policy = Erratic()
    verdict = judge(toy, scheduler, SAMPLES, seed=5)
    assert verdict.passed, verdict


class Curious(SJDScheduler):
    """Broken: a window per picture that ends before a second draft of an even number, which then waits."""

    def plan(self, state, noise):
        query = super().plan(state, noise)
        if state.window == 3:
            second = query.token_ids[:, 2:3] % 2 == 0
            self.held = torch.where(second, query.token_ids[:, 2:3], -1)
        return query

    def accept(self, slots):
        keep = super().accept(slots)
        if keep.shape[1] == 3:
            keep[:, 1:] &= self.held < 0
        return keep

    def redraft(self, slots):
        tokens = super().redraft(slots)
        if slots.keep.shape[1] == 3:
            tokens[:, 1:2] = torch.where(self.held < 0, tokens[:, 1:2], self.held)
        return tokens


def test_a_choice_that_looks_at_drafts_is_caught(toy):
    verdict = judge(toy, Curious(window=3), 2 * SAMPLES, seed=5)
    assert not verdict.passed, verdict


def test_what_is_learned_stays_for_the_next_picture_of_the_same_kind(large):
    scheduler = SeededJacobiScheduler(window="auto")
    scheduler.window_policy = WindowPolicy(pass_seconds=accelerator)
    first = draw(large, scheduler, [0]).statistics.windows
    second = draw(large, scheduler, [1]).statistics.windows
    pair = draw(large, scheduler, [0, 1]).statistics.windows
    assert first[0] == START
    assert second[0] >= 32
    assert pair[0] == START


def test_equal_costs_draw_the_same_picture_again(large):
    runs = []
    for _ in range(2):
        scheduler = CoupledSJDScheduler(window="auto")
        scheduler.window_policy = WindowPolicy(pass_seconds=processor)
        runs.append(draw(large, scheduler, [3]))
    assert torch.equal(runs[0].tokens, runs[1].tokens)
    assert runs[0].statistics.windows == runs[1].statistics.windows


def test_measured_seconds_reach_the_policy(large):
    scheduler = SeededJacobiScheduler(window="auto")
    statistics = draw(large, scheduler, [0]).statistics
    costs = scheduler.window_policy.costs()
    assert min(costs.values()) > 0
    assert max(costs.values()) < statistics.seconds["decode"]


def test_small_pictures_have_small_windows(toy):
    toy.scheduler = SeededJacobiScheduler(window="auto")
    statistics = toy("a red dog", num_images_per_prompt=20, output_type="latent").statistics
    assert max(statistics.windows) == 2


@pytest.mark.parametrize("name", AUTO)
def test_auto_is_saved_with_the_scheduler(tmp_path, name):
    SCHEDULERS[name](window="auto").save_pretrained(tmp_path)
    assert SCHEDULERS[name].from_pretrained(tmp_path).config.window == "auto"


@pytest.mark.parametrize("window", [0, "fast", True, None])
def test_bad_windows_are_refused(window):
    with pytest.raises(ValueError, match=rf"window must be an integer from 1 to 65536 or 'auto', got {window!r}\."):
        SeededJacobiScheduler(window=window)
