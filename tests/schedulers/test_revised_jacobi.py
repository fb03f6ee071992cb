"""Jacobi drafts revised by a network: always the sequential picture, and what has not changed stays."""

from itertools import pairwise

import pytest
import torch

from sjd_pipelines import (
    AutoregressiveScheduler,
    ImageTokenLayout,
    PositionNoise,
    RevisedJacobiScheduler,
    SeededJacobiScheduler,
)
from sjd_pipelines.decoding import decode
from sjd_pipelines.schedulers.adaptive_window import WINDOWS, WindowChoice
from sjd_pipelines.schedulers.drafting import one_hot

PROMPTS = ["a red dog", "two blue cat on a green house", "car", "three dog left of a house"]
SAMPLING = {"guidance_scale": 3.0, "output_type": "latent", "top_k": 9, "top_p": 0.9}


def draw(pipe, scheduler, prompts=PROMPTS, seeds=range(4)):
    pipe.scheduler = scheduler
    return pipe(prompts, generator=[torch.Generator().manual_seed(seed) for seed in seeds], **SAMPLING)


@pytest.mark.parametrize(("reach", "revisions"), [(1, 1), (4, 1), (3, 2), (100, 3)])
@pytest.mark.parametrize("window", [1, 2, 3, 16, 40, "auto"])  # the picture has 16 tokens
def test_the_sequential_picture(pipe, window, reach, revisions):
    reference = draw(pipe, AutoregressiveScheduler()).tokens
    output = draw(pipe, RevisedJacobiScheduler(window, reach, revisions))
    assert torch.equal(output.tokens, reference)
    assert max(output.statistics.forward_passes) <= 16
    assert sum(output.statistics.forward_passes) < 4 * 16


def test_batch_equals_single(pipe):
    scheduler = RevisedJacobiScheduler(window=5, reach=5, revisions=2)
    together = draw(pipe, scheduler)
    for row, prompt in enumerate(PROMPTS):
        alone = draw(pipe, scheduler, [prompt], [row])
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert alone.statistics.forward_passes[0] == together.statistics.forward_passes[row]


def test_without_guidance(pipe):
    pictures = []
    for scheduler in (AutoregressiveScheduler(), RevisedJacobiScheduler(window=5)):
        pipe.scheduler = scheduler
        generator = torch.Generator().manual_seed(1)
        pictures.append(pipe("a red dog", guidance_scale=1.0, generator=generator, output_type="latent").tokens)
    assert torch.equal(*pictures)


class TrustsTheReviser(RevisedJacobiScheduler):
    """Accepts the first draft unseen."""

    def step(self, probabilities, query, state, noise):
        if state.passes and state.window:
            probabilities[:, 0] = one_hot(query.token_ids[:, 1], probabilities.shape[-1])
        return super().step(probabilities, query, state, noise)


def test_a_broken_twin_is_caught(pipe):
    reference = draw(pipe, AutoregressiveScheduler()).tokens
    assert not torch.equal(draw(pipe, TrustsTheReviser(window=5)).tokens, reference)


class TableReviser:
    """Knows that the law of a token depends on the one before it alone."""

    def __init__(self, table):
        self.table, self.asked = table, []

    def observe(self, seen):
        """It knows the target."""

    def at(self, predicts):
        self.asked.append(predicts.clone())
        return lambda canvas: self.table[canvas.gather(1, predicts - 1)]


@pytest.fixture
def run(table_target, table):
    """Decodes three pictures: tokens gained in each pass, its query, and the final state."""

    def run(scheduler, reviser, seeds=(3, 4, 5)):
        target, counts = table_target(table, ImageTokenLayout(4, 4, table.shape[-1]), len(seeds)), [0]
        companions = {} if reviser is None else {"reviser": reviser}
        noise = PositionNoise(list(seeds))
        state = decode(target, scheduler, noise, companions, lambda state: counts.append(min(state.counts)))
        return [new - old for old, new in pairwise(counts)], target.queries, state

    return run


@pytest.fixture
def table():
    return torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).softmax(-1)


@pytest.mark.parametrize("window", [1, 5, 16])
def test_each_revision_makes_one_more_draft_right(run, table, window):
    """A perfect reviser, over all drafts, as often as there are drafts."""
    perfect = RevisedJacobiScheduler(window=window, reach=window, revisions=window)
    gains, _, state = run(perfect, TableReviser(table))
    _, _, reference = run(SeededJacobiScheduler(window=window), None)
    assert torch.equal(state.tokens, reference.tokens)
    # The target saw `window` drafts, and has chosen a token behind each but for those that entered since.
    assert all(gain >= min(2, window) for gain in gains[1:-1])
    once, _, _ = run(RevisedJacobiScheduler(window=window, reach=window, revisions=1), TableReviser(table))
    never, _, _ = run(SeededJacobiScheduler(window=window), None)
    assert len(gains) <= len(once) <= len(never)
    assert len(gains) < len(never) or window == 1


def test_only_drafts_within_reach_that_the_target_has_seen_are_revised(run, table):
    reviser = TableReviser(table)
    scheduler = RevisedJacobiScheduler(window=6, reach=4, revisions=2)
    _, queries, _ = run(scheduler, reviser)
    assert len(reviser.asked) == len(queries) - 1  # in the first pass the target has seen nothing
    for query, asked in zip(queries[1:], reviser.asked):
        assert torch.equal(asked, query.predicts[:, : min(4, query.predicts.shape[1] - 1)])

    class Stubborn(TableReviser):
        """Wants token 7 everywhere."""

        def at(self, predicts):
            return lambda canvas: torch.eye(8)[torch.full_like(predicts, 7)]

    _, queries, state = run(scheduler, Stubborn(table))
    _, _, reference = run(SeededJacobiScheduler(window=6), None)
    assert torch.equal(state.tokens, reference.tokens)
    for before, query in pairwise(queries):
        drafts, positions = query.token_ids[:, 1:5], query.positions[:, :4]
        seen = (positions <= before.positions[:, -1:])[:, : drafts.shape[1]]
        assert (drafts[seen] == 7).all()


def test_auto_windows_are_revised_as_far_as_the_last_one_saw(pipe):
    """The window may shrink and grow again: what an earlier, longer one saw is out of date."""
    sizes = iter([16, 2, 12, 1, 9, 3, 16] + [4] * 20)

    class Scripted(WindowChoice):
        def choose(self):
            return next(sizes)

    class ScriptedScheduler(RevisedJacobiScheduler):
        choice_type = Scripted

    scheduler = ScriptedScheduler(window="auto", reach=100, revisions=2)
    output = draw(pipe, scheduler)
    assert torch.equal(output.tokens, draw(pipe, AutoregressiveScheduler()).tokens)
    assert scheduler.window == WINDOWS[-1]
    assert output.statistics.windows[:3] == [16, 2, 12]


def test_no_reviser_no_work(pipe):
    reviser = pipe.reviser
    pipe.register_modules(reviser=None)
    pipe.scheduler = RevisedJacobiScheduler()
    try:
        with pytest.raises(ValueError, match=r"RevisedJacobiScheduler needs a reviser and this model has none"):
            pipe("a red dog")
    finally:
        pipe.register_modules(reviser=reviser)


@pytest.mark.parametrize("setting", ["window", "reach", "revisions"])
def test_bad_settings_are_refused(setting):
    with pytest.raises(ValueError, match=rf"{setting} must be an integer from 1 to .*, got 0\."):
        RevisedJacobiScheduler(**{setting: 0})


def test_unknown_initialisers_are_refused():
    with pytest.raises(ValueError, match="initialise"):
        RevisedJacobiScheduler(initialise="guess")
