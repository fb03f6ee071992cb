"""PAR's decoder: its law by enumeration, its windows, its step counts, whom it decodes."""

import re

import pytest
import torch

from sjd_pipelines import SCHEDULERS, AutoregressiveScheduler, ParallelGroupsScheduler
from sjd_pipelines.benchmark.exactness import SAMPLING as LAW_SAMPLING
from sjd_pipelines.benchmark.exactness import (
    draw,
    enumerable_par_pipeline,
    image_law,
    judge,
    sampling_noise,
    total_variation,
)
from sjd_pipelines.benchmark.toy import toy_par_pipeline
from sjd_pipelines.decoding import ImageTokenLayout, ParallelSequence, PositionNoise, decode

SAMPLING = {"guidance_scale": 2.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "output_type": "latent"}
SAMPLES = 4000


@pytest.fixture(scope="module")
def enumerable(device):
    return enumerable_par_pipeline().to(device)


class CausalGroups(ParallelGroupsScheduler):
    """Tokens of a group do not see those after them in it."""

    def plan(self, state, noise):
        query = super().plan(state, noise)
        slots = torch.arange(query.visible.shape[-1], device=query.visible.device)
        query.visible = query.visible & (slots <= query.slots[..., None])
        return query


class Scrambled(ImageTokenLayout):
    """Takes the order of the tokens for that of the cells, as a published sampling script does."""

    def image_tokens(self, tokens):
        return tokens


@pytest.mark.parametrize("window", [0, 4, 8])
def test_it_draws_from_the_law_and_every_window_the_same(enumerable, window):
    verdict = judge(enumerable, ParallelGroupsScheduler(window=window), SAMPLES, seed=window)
    assert verdict.passed, verdict
    assert verdict.identical == 1
    assert (verdict.passes == 6) == (window == 0)


@pytest.mark.slow
def test_twenty_thousand_draws(enumerable):
    verdict = judge(enumerable, ParallelGroupsScheduler(), 20_000, seed=1)
    assert verdict.passed, verdict


def test_causal_groups_are_caught(enumerable):
    verdict = judge(enumerable, CausalGroups(), SAMPLES, seed=3)
    assert not verdict.passed
    assert verdict.total_variation > verdict.limit


def test_pictures_in_the_order_of_their_tokens_are_caught(enumerable, monkeypatch):
    right = type(enumerable).image_layout
    monkeypatch.setattr(type(enumerable), "image_layout", lambda pipe, *size: Scrambled(**vars(right(pipe, *size))))
    images, _ = draw(enumerable, ParallelGroupsScheduler(), SAMPLES, 0, **LAW_SAMPLING)
    monkeypatch.undo()
    law = image_law(enumerable, **LAW_SAMPLING)
    _, limit = sampling_noise(law, SAMPLES, 0)
    assert total_variation(images, law) > limit


@pytest.mark.parametrize(("side", "parallel", "passes"), [(24, 4, 147), (24, 16, 51), (16, 4, 67), (16, 16, 31)])
def test_steps_are_those_of_the_paper(table_target, side, parallel, passes):
    layout = ImageTokenLayout.in_regions(side, side, 4, parallel)
    table = torch.rand(4 + parallel - 1, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    target, scheduler = table_target(table, layout, 1), ParallelGroupsScheduler()
    noise = PositionNoise([5], num_positions=layout.num_tokens + scheduler.margin(layout))
    assert decode(target, scheduler, noise).passes == passes == layout.sequential_passes


@pytest.mark.parametrize("parallel", [4, 16])
@pytest.mark.parametrize("window", [0, 3, 4, 16, 17, 40, 1000])
def test_windows_batches_and_devices_of_the_noise_change_nothing(device, parallel, window):
    pipe = toy_par_pipeline(8, codebook_size=16, parallel=parallel, logit_scale=2.0, names=("a", "b", "c"))
    pipe.to(device).set_progress_bar_config(disable=True)
    plain = pipe(["a", "b", "c"], seeds=[1, 2, 3], **SAMPLING)
    output = pipe(["a", "b", "c"], seeds=[1, 2, 3], scheduler=ParallelGroupsScheduler(window=window), **SAMPLING)
    assert torch.equal(output.tokens, plain.tokens)
    alone = pipe("b", seeds=[2], scheduler=ParallelGroupsScheduler(window=window), **SAMPLING)
    assert torch.equal(alone.tokens[0], plain.tokens[1])
    assert alone.statistics.forward_passes[0] == output.statistics.forward_passes[1]
    most = pipe.image_layout(None, None).sequential_passes
    for passes, committed in zip(output.statistics.forward_passes, output.statistics.committed_per_pass):
        assert len(committed) == passes <= most
        assert sum(committed) == 64


def test_guesses_save_passes_where_the_model_is_sure(device):
    pipe = toy_par_pipeline(8, codebook_size=4, logit_scale=6.0, names=("a",))
    pipe.to(device).set_progress_bar_config(disable=True)
    plain, guessed = (
        pipe("a", seeds=[1], scheduler=ParallelGroupsScheduler(window=window), **SAMPLING).statistics
        for window in (0, 16)
    )
    assert plain.forward_passes == [19]
    assert guessed.forward_passes[0] < 19


def test_the_acceptance_map_shows_the_regions(par_toy):
    maps = par_toy("car", seeds=[1], scheduler=ParallelGroupsScheduler(), **SAMPLING).statistics.acceptance_map[0]
    assert maps.tolist() == [[0, 4, 1, 4], [5, 6, 5, 6], [2, 4, 3, 4], [5, 6, 5, 6]]


def test_a_wrong_pair_is_refused_with_the_reason(pipe, par_toy):
    for cls in SCHEDULERS.values():
        scheduler = cls()
        if cls.parallel:
            continue
        reason = (
            f"{cls.__name__} makes tokens one after the other, and this model makes 4 at once (PAR); "
            "choose the scheduler par."
        )
        with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
            par_toy("car", scheduler=scheduler, **SAMPLING)
    with pytest.raises(ValueError, match="decodes models that make tokens in groups"):
        pipe("a red dog", scheduler=ParallelGroupsScheduler(), **SAMPLING)
    assert AutoregressiveScheduler().unsuited(pipe.image_layout(None, None), []) is None


@torch.no_grad()
def test_teacher_forced_logits_equal_decoded_ones(par_toy):
    layout = par_toy.image_layout(None, None)
    scheduler, sampling = ParallelGroupsScheduler(), par_toy.prepare_sampling(guidance_scale=2.0, top_k=0)
    encoded = par_toy.encode_prompt(["1", "3"], None, True, 1)
    target = par_toy.prepare_target(encoded, layout, sampling, scheduler.margin(layout))
    seen = []

    class Keep:
        def observe(self, passed):
            seen.append((passed.query.predicts, passed.logits))

    state = decode(target, scheduler, PositionNoise([1, 2], target.device, target.length), {"keep": Keep()})
    sequence = ParallelSequence(layout)
    taught = par_toy.prepare_target(encoded, layout, sampling, sequence.margin).run(
        sequence.teacher_forced(state.tokens)
    )
    for predicts, logits in seen:
        rows = torch.arange(2)[:, None]
        assert (taught.logits[rows, predicts] - logits).abs().max() < 1e-5


def test_the_mask_is_that_of_its_definition():
    """Condition, n tokens, n - 1 learned ones, the rest: causal, and all of a block of n sees all of it."""
    for side, parallel in ((4, 4), (8, 16), (6, 9)):
        layout = ImageTokenLayout.in_regions(side, side, 7, parallel)
        query = ParallelSequence(layout).teacher_forced(torch.arange(side * side)[None] % 7)
        count = layout.num_tokens
        expected = torch.ones(count, count, dtype=torch.bool).tril()  # with the condition first
        for begin in range(parallel, count, parallel):
            expected[begin : begin + parallel, : begin + parallel] = True
        assert torch.equal(query.visible[0][:, : count - 1], expected[:, 1:])
        learned = query.token_ids[0] >= 7
        assert learned.nonzero()[:, 0].tolist() == list(range(parallel + 1, 2 * parallel))


def test_the_order_has_an_inverse_and_is_the_published_one():
    layout = ImageTokenLayout.in_regions(24, 24, 7, 4)
    assert layout.order[:8] == (0, 12, 288, 300, 1, 13, 289, 301)
    for side, parallel in ((24, 4), (24, 16), (16, 16), (6, 9)):
        layout, m = ImageTokenLayout.in_regions(side, side, 7, parallel), int(parallel**0.5)
        values = torch.arange(side * side)[None]
        by_position = values[:, layout.cells(side * side)]
        assert torch.equal(layout.image_tokens(by_position), values)
        inverse = by_position.view(side // m, side // m, m, m).permute(2, 0, 3, 1).reshape(1, -1)
        assert torch.equal(inverse, values)


@pytest.mark.parametrize(("rows", "columns", "parallel"), [(4, 4, 3), (4, 6, 16), (5, 4, 4), (4, 4, 0), (4, 4, -4)])
def test_uneven_regions_are_refused(rows, columns, parallel):
    with pytest.raises(ValueError, match="equal regions"):
        ImageTokenLayout.in_regions(rows, columns, 8, parallel)
