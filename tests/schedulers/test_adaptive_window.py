"""`window="auto"` biases nothing, and is as fast as the best window."""

import itertools
import random
import threading

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
from sjd_pipelines.decoding import Memory
from sjd_pipelines.schedulers.adaptive_window import (
    AGE,
    PROBES,
    STALE,
    START,
    AcceptedDrafts,
    PassSeconds,
    WindowChoice,
    costs,
    takes_auto,
)

AUTO = [name for name, cls in SCHEDULERS.items() if takes_auto(cls)]
PICTURES, COLD = 10, 4
FIXED = (1, 2, 4, 8, 16, 32, 64)
SAMPLES = 6000


@pytest.fixture(scope="module")
def large(device):
    """16 x 16 tokens."""
    pipe = toy_pipeline(side=16, codebook_size=32, logit_scale=1.5, layers=1).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def toy(device):
    return enumerable_pipeline().to(device)


def draw(pipe, scheduler, seeds, **sampling):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    options = {"num_images_per_prompt": len(seeds), "generator": generators, "output_type": "latent"}
    return pipe("a red dog", scheduler=scheduler, **options, **{"guidance_scale": 2.0, **sampling})


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
    """Windows of every pass by picture, by fixed window: pictures do not depend on their batch."""
    tokens = large.image_layout(None, None).num_tokens
    windows = {}
    for window in FIXED:
        committed = draw(large, SeededJacobiScheduler(window=window), range(PICTURES)).statistics.committed_per_pass
        fronts = [itertools.accumulate([0, *row[:-1]]) for row in committed]
        windows[window] = [[min(window, tokens - front) for front in picture] for picture in fronts]
    return windows


def with_choice(scheduler, choice):
    """A scheduler class with another choice of windows."""
    return type(f"{choice.__name__}{scheduler.__name__}", (scheduler,), {"choice_type": choice})


def with_cost(scheduler, cost):
    """A scheduler class whose passes take as long as `cost` says of their window."""

    class Costed(WindowChoice):
        def observe(self, window, seconds, counts, advances):
            super().observe(window, cost(window), counts, advances)

    return with_choice(scheduler, Costed)


@pytest.mark.parametrize("cost", [processor, weak_processor, accelerator], ids=lambda cost: cost.__name__)
def test_auto_is_as_fast_as_the_best_window_what_it_learns_included(large, passes, cost):
    scheduler = with_cost(SeededJacobiScheduler, cost)(window="auto")
    seconds = 0.0
    for seed in range(PICTURES):
        statistics = draw(large, scheduler, [seed]).statistics
        assert len(statistics.windows) == statistics.forward_passes[0]
        seconds += sum(map(cost, statistics.windows))
    fixed = {window: sum(sum(map(cost, picture)) for picture in pictures) for window, pictures in passes.items()}
    assert seconds <= 1.05 * min(fixed.values()), (seconds, fixed)
    assert max(fixed.values()) > 1.5 * min(fixed.values())  # there is something to choose


@pytest.mark.parametrize("cost", [processor, accelerator], ids=lambda cost: cost.__name__)
def test_a_single_picture_is_about_as_fast(large, passes, cost):
    """Windows are compared within it; nothing is known before."""
    seconds = 0.0
    for seed in range(COLD):
        scheduler = with_cost(SeededJacobiScheduler, cost)(window="auto")
        seconds += sum(map(cost, draw(large, scheduler, [seed]).statistics.windows))
    fixed = [sum(sum(map(cost, picture)) for picture in pictures[:COLD]) for pictures in passes.values()]
    assert seconds <= 1.1 * min(fixed), (seconds, fixed)


class Erratic(WindowChoice):
    """Another window in every pass, whatever happens."""

    turn = 0

    def choose(self):
        self.turn += 1
        return (3, 1, 4, 2, 1, 7)[self.turn % 6]


@pytest.mark.parametrize("name", AUTO)
def test_exact_and_greedy_schedulers_draw_the_sequential_picture(large, name):
    scheduler = with_choice(SCHEDULERS[name], Erratic)(window="auto")
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
    ("cls", "settings"),
    [
        (SJDScheduler, {}),
        (CoupledSJDScheduler, {}),
        (CoupledSJDScheduler, {"coupling": "gumbel"}),
        (SJDPACScheduler, {"branches": 2}),
    ],
    ids=lambda value: getattr(
        value, "__name__", "-".join(map(str, value.values())) if isinstance(value, dict) else ""
    ),
)
def test_lossless_schedulers_keep_the_law_at_changing_windows(toy, cls, settings):
    verdict = judge(toy, with_choice(cls, Erratic)(window="auto", **settings), SAMPLES, seed=5)
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


def test_what_is_learned_stays_with_the_model_for_runs_of_the_same_kind(large):
    """Not with the scheduler: ComfyUI makes a new one for every run."""
    cls = with_cost(SeededJacobiScheduler, accelerator)
    first = draw(large, cls(window="auto"), [0]).statistics.windows
    second = draw(large, cls(window="auto"), [1]).statistics.windows
    pair = draw(large, cls(window="auto"), [0, 1]).statistics.windows
    other = draw(large, cls(window="auto", initialise="uniform"), [0]).statistics.windows
    assert [windows[0] for windows in (first, pair, other)] == [START] * 3
    assert second[0] >= 32
    large.memory = Memory()
    assert draw(large, cls(window="auto"), [0]).statistics.windows == first


def test_other_sampling_has_the_same_costs_and_other_drafts(large):
    cls = with_cost(SeededJacobiScheduler, accelerator)
    draw(large, cls(window="auto"), [0])
    statistics = draw(large, cls(window="auto"), [0], temperature=0.5).statistics
    assert statistics.windows[0] >= 32  # no pass is spent to measure a cost again
    assert draw(large, cls(window="auto"), [0], guidance_scale=1.0).statistics.windows[0] == START


def test_equal_costs_draw_the_same_picture_again(large):
    runs = [draw(large, with_cost(CoupledSJDScheduler, processor)(window="auto"), [3]) for _ in range(2)]
    assert torch.equal(runs[0].tokens, runs[1].tokens)
    assert runs[0].statistics.windows == runs[1].statistics.windows


def test_measured_seconds_reach_the_choice(large):
    told = []

    class Listener(WindowChoice):
        def observe(self, window, seconds, counts, advances):
            told.append((window, seconds, sum(advances)))
            super().observe(window, seconds, counts, advances)

    statistics = draw(large, with_choice(SeededJacobiScheduler, Listener)(window="auto"), [0]).statistics
    assert [window for window, _, _ in told] == statistics.windows[:-1]
    assert [tokens for _, _, tokens in told] == statistics.committed_per_pass[0][:-1]
    assert 0 < sum(seconds for _, seconds, _ in told) <= statistics.seconds["decode"]


def test_runs_of_one_scheduler_in_threads_choose_by_themselves(large):
    """Other batch sizes, and thereby other findings; the same ones; and a smaller picture with a smaller menu."""
    scheduler, small = SeededJacobiScheduler(window="auto"), toy_pipeline(side=3, codebook_size=16)
    small.to(large.device).set_progress_bar_config(disable=True)
    calls = [(large, [0]), (large, [1]), (large, [2, 3]), (small, [4, 5, 6])]
    outputs, barrier = [None] * len(calls), threading.Barrier(len(calls))

    def run(index):
        pipe, seeds = calls[index]
        barrier.wait(timeout=60)
        outputs[index] = draw(pipe, scheduler, seeds)

    threads = [threading.Thread(target=run, args=[index]) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (pipe, seeds), output in zip(calls, outputs):
        assert torch.equal(output.tokens, draw(pipe, AutoregressiveScheduler(), seeds).tokens)
    assert max(outputs[3].statistics.windows) <= 4


def test_findings_survive_many_runs_at_once():
    """Choices that share findings, of which some go out of date while others look at them."""
    seconds, drafts, failed = PassSeconds(), AcceptedDrafts(), []

    def run(number):
        generator = random.Random(number)
        try:
            for _ in range(20):
                choice = WindowChoice((9, 64, 256)[number % 3], seconds, drafts)
                for count in range(1, 200, 4):
                    window = choice.choose()
                    accepted = generator.randrange(window + 1)
                    choice.observe(window, generator.random(), [count + accepted + 1], [accepted + 1])
        except Exception as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=run, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_costs_that_are_old_are_measured_again():
    seconds = PassSeconds()
    for window in [16] * PROBES + [8] * PROBES:
        seconds.add(window, processor(window))
    assert seconds.known() == {8: processor(8), 16: processor(16)}
    for _ in range(STALE):
        seconds.add(8, processor(8))
    assert list(seconds.known()) == [8]
    assert WindowChoice(256, seconds, AcceptedDrafts()).choose() == 4  # what slots cost is no longer known
    for _ in range(STALE):
        seconds.add(1000, 1.0)  # a window that is on no menu
    assert WindowChoice(256, seconds, AcceptedDrafts()).choose() == START


def test_costs_between_and_beyond_those_measured():
    found = costs({8: 2.0, 16: 4.0}, [1, 4, 8, 12, 16, 32])
    assert found == {1: pytest.approx(2 * 2 / 9), 4: pytest.approx(2 * 5 / 9), 8: 2.0, 12: 3.0, 16: 4.0, 32: 8.0}
    assert costs({8: 2.0}, [4, 8, 16]) == {4: 2.0, 8: 2.0, 16: 2.0}
    slow = PassSeconds()
    for window, time in [(4, 9.0), (8, 3.0)]:
        for _ in range(PROBES):
            slow.add(window, time)
    assert slow.known() == {4: 3.0, 8: 3.0}  # the smaller one was held up by something else


def test_a_large_window_tells_of_smaller_ones():
    """Passes that accept every number of drafts equally often: at most w of them in a window of w."""
    drafts, menu = AcceptedDrafts(), [4, 8, 16, 32]
    for _ in range(100):
        drafts.add(16, list(range(17)))
    tokens = drafts.tokens(menu)
    assert tokens[16] == pytest.approx(1 + 8, rel=0.02)
    for window in (4, 8):
        shown = sum(min(number, window) for number in range(17)) / 17
        aged = window / (window + AGE) / (16 / (16 + AGE))  # drafts in a smaller window had less time to get better
        assert tokens[window] == pytest.approx(1 + aged * shown, rel=0.05)
    assert tokens[16] < tokens[32] < 1.5 * tokens[16]


def test_small_pictures_have_small_windows(toy):
    statistics = draw(toy, SeededJacobiScheduler(window="auto"), range(20)).statistics
    assert max(statistics.windows) == 2


@pytest.mark.parametrize("name", AUTO)
def test_auto_is_saved_with_the_scheduler(tmp_path, name):
    SCHEDULERS[name](window="auto").save_pretrained(tmp_path)
    assert SCHEDULERS[name].from_pretrained(tmp_path).config.window == "auto"


@pytest.mark.parametrize("window", [0, "fast", True, None])
def test_bad_windows_are_refused(window):
    with pytest.raises(ValueError, match=rf"window must be an integer from 1 to 65536 or 'auto', got {window!r}\."):
        SeededJacobiScheduler(window=window)
