"""Jacobi drafts corrected by a draft model: always the sequential picture, and what has not changed stays."""

from itertools import pairwise

import pytest
import torch

from sjd_pipelines import AutoregressiveScheduler, CorrectedJacobiScheduler, ImageTokenLayout, PositionNoise
from sjd_pipelines.decoding import TargetPass, decode, probabilities
from sjd_pipelines.decoding.drafter import DraftQuery
from sjd_pipelines.schedulers.drafting import one_hot

PROMPTS = ["a red dog", "two blue cat on a green house", "car", "three dog left of a house"]
SAMPLING = {"guidance_scale": 3.0, "output_type": "latent", "top_k": 9, "top_p": 0.9}


def draw(pipe, scheduler, prompts=PROMPTS, seeds=range(4)):
    pipe.scheduler = scheduler
    return pipe(prompts, generator=[torch.Generator().manual_seed(seed) for seed in seeds], **SAMPLING)


@pytest.mark.parametrize(
    ("reach", "corrections", "branches", "depth"), [(1, 1, 1, 1), (16, 1, 4, 3), (4, 3, 2, 5), (100, 2, 30, 2)]
)
@pytest.mark.parametrize("window", [1, 2, 3, 16, 40])  # the picture has 16 tokens
def test_the_sequential_picture(pipe, window, reach, corrections, branches, depth):
    reference = draw(pipe, AutoregressiveScheduler()).tokens
    scheduler = CorrectedJacobiScheduler(window, reach, corrections, branches, depth)
    output = draw(pipe, scheduler)
    assert torch.equal(output.tokens, reference)
    assert len({tuple(counts) for counts in output.statistics.committed_per_pass}) > 1  # rows advance on their own
    assert max(output.statistics.forward_passes) <= 16
    assert sum(output.statistics.forward_passes) < 4 * 16


def test_batch_equals_single(pipe):
    scheduler = CorrectedJacobiScheduler(window=5)
    together = draw(pipe, scheduler)
    for row, prompt in enumerate(PROMPTS):
        alone = draw(pipe, scheduler, [prompt], [row])
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert alone.statistics.forward_passes[0] == together.statistics.forward_passes[row]


class TrustsTheDrafter(CorrectedJacobiScheduler):
    """Accepts the first draft unseen."""

    def step(self, probabilities, query, state, noise):
        if state.passes:
            probabilities[:, 0] = one_hot(query.token_ids[:, 1], probabilities.shape[-1])
        return super().step(probabilities, query, state, noise)


def test_a_broken_twin_is_caught(pipe):
    reference = draw(pipe, AutoregressiveScheduler()).tokens
    assert not torch.equal(draw(pipe, TrustsTheDrafter(window=5)).tokens, reference)


class TableDrafter:
    """Knows that the law of a token depends on the one before it alone."""

    def __init__(self, table):
        self.table, self.reviewed = table, []

    def observe(self, seen):
        """It knows the target."""

    def review(self, query):
        self.reviewed.append(query.positions.clone())

    def laws(self, query):
        return self.table[query.token_ids]


@pytest.mark.parametrize("window", [1, 5])
def test_a_perfect_drafter_makes_every_draft_right(table_target, window):
    table = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).softmax(-1)
    scheduler = CorrectedJacobiScheduler(window=window, corrections=window)
    drafter, counts = TableDrafter(table), [0]
    decode(
        table_target(table, ImageTokenLayout(4, 4, 8), 3),
        scheduler,
        PositionNoise([3, 4, 5]),
        {"drafter": drafter},
        lambda state: counts.append(min(state.counts)),
    )
    gains = [new - old for old, new in pairwise(counts)]
    assert gains[1:-1] == [window + 1] * (len(gains) - 2)  # the first pass has no drafter, the last less room
    assert all((positions >= 0).all() for positions in drafter.reviewed)


@torch.no_grad()
def test_what_has_not_changed_keeps_the_choice_of_the_target(pipe):
    """Behind tokens that the target has seen, a reviewed drafter says what the target said, whatever its weights."""
    scheduler = CorrectedJacobiScheduler(window=6)
    seen = []

    class Watched(CorrectedJacobiScheduler):
        def step(self, laws, query, state, noise):
            if state.passes == 1:
                chain = slice(1, state.window + 1)
                asked = (query.token_ids, query.positions, query.predicts, query.visible)
                ask = DraftQuery(*(values[:, chain] for values in asked))
                own = state.drafter.laws(ask)
                state.drafter.observe(TargetPass(query, hidden_states[-1], laws))  # what `laws` wrote over
                state.drafter.review(ask)
                seen.append((own, state.drafter.laws(ask), laws[:, chain]))
            return super().step(laws, query, state, noise)

    hidden_states = []
    run = type(pipe).run_transformer

    class Listening(type(pipe)):
        def run_transformer(self, *arguments):
            hidden_states.append(run(self, *arguments))
            return hidden_states[-1]

    listening = Listening(pipe.model, pipe.processor, Watched(**scheduler.config), pipe.drafter)
    listening.set_progress_bar_config(disable=True)
    listening(PROMPTS, guidance_scale=2.0, temperature=1.0, top_k=0, top_p=1.0, output_type="latent")
    own, reviewed, target = seen[0]
    assert (own - target).abs().max() > 0.01
    assert torch.allclose(reviewed, target, atol=1e-5)
    assert torch.equal(probabilities(reviewed.log()).argmax(-1), target.argmax(-1))


def test_no_drafter_no_work(pipe):
    drafter = pipe.drafter
    pipe.register_modules(drafter=None)
    pipe.scheduler = CorrectedJacobiScheduler()
    try:
        with pytest.raises(ValueError, match=r"CorrectedJacobiScheduler needs a drafter"):
            pipe("a red dog")
    finally:
        pipe.register_modules(drafter=drafter)


@pytest.mark.parametrize("setting", ["window", "reach", "corrections", "branches", "depth"])
def test_bad_settings_are_refused(setting):
    with pytest.raises(ValueError, match=rf"{setting} must be an integer from 1 to \d+, got 0\."):
        CorrectedJacobiScheduler(**{setting: 0})


def test_unknown_initialisers_are_refused():
    with pytest.raises(ValueError, match="initialise"):
        CorrectedJacobiScheduler(initialise="guess")
