"""Row-parallel decoding of real families: row ends in place, and every token drawn from the context it should have."""

from dataclasses import replace

import pytest
import torch

from sjd_pipelines import (
    AutoregressiveScheduler,
    ParallelJacobiScheduler,
    PositionNoise,
    Purpose,
    Query,
    ZipARScheduler,
)
from sjd_pipelines.decoding import Sampling, race

TEXTS = ["a red dog", "two blue cat on a red house"]
SAMPLING = {"guidance_scale": 3.0, "temperature": 1.0, "output_type": "latent"}
SEEDS = [5, 6]


def generators():
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


@pytest.fixture(params=["emu3", "lumina", "captions", "anole"])
def pipe(request):
    pipe = request.getfixturevalue(request.param)
    before = pipe.scheduler
    yield pipe
    pipe.scheduler = before


@pytest.mark.parametrize("delay", [1, 2])
@pytest.mark.parametrize("name", ["emu3", "lumina"])
def test_zipar_draws_from_one_masked_forward_pass(request, name, delay):
    pipe = request.getfixturevalue(name)
    layout = pipe.image_layout(None, None)
    before, pipe.scheduler = pipe.scheduler, ZipARScheduler(delay=delay)
    captured = []
    output = pipe(
        TEXTS,
        generator=generators(),
        callback_on_step_end=lambda pipe, index, committed, tensors: captured.append(tensors["canvas"]),
        **SAMPLING,
    )
    canvas = captured[-1]

    # A token is fed, and seen, from the pass after the one that drew it; a row end when it opens the next row.
    positions = torch.arange(layout.num_tokens, device=canvas.device)
    row, column = positions // layout.width, positions % layout.width
    fed = torch.where(column < layout.columns, row * delay + column + 1, (row + 1) * delay)
    times = torch.cat([fed.new_zeros(1), fed[:-1]])
    visible = (positions <= positions[:, None] - 1) & (fed <= times[:, None])  # [N, N]
    encoded = pipe.encode_prompt(TEXTS, None, True, 1)
    query = replace(Query.teacher_forced(canvas), visible=visible.expand(2, -1, -1))
    with torch.no_grad():
        target = pipe.prepare_target(encoded, layout, Sampling(3.0))
        law = target.law(target.run(query).logits, query.predicts)
    seeds = output.statistics.seeds
    noise = PositionNoise(seeds, canvas.device)
    exponential = noise.exponential(positions.expand_as(canvas), Purpose.SAMPLE, law.shape[-1])
    pipe.scheduler = before
    assert torch.equal(race(law, exponential), canvas)


@pytest.mark.parametrize(
    "scheduler",
    [ZipARScheduler(delay=1), ZipARScheduler(delay=1, adaptive=True), ParallelJacobiScheduler(window=2, delay=1)],
    ids=["zipar", "adaptive", "pjd"],
)
def test_rows_of_a_batch_equal_singles(pipe, scheduler):
    pipe.scheduler = scheduler
    batch = pipe(TEXTS, generator=generators(), **SAMPLING)
    layout = pipe.image_layout(None, None)
    assert batch.tokens.max() < layout.codebook_size
    assert (batch.statistics.acceptance_map >= 0).all()
    for index, text in enumerate(TEXTS):
        single = pipe(text, generator=generators()[index : index + 1], **SAMPLING)
        assert torch.equal(single.tokens[0], batch.tokens[index])
        assert torch.equal(single.statistics.acceptance_map[0], batch.statistics.acceptance_map[index])


def test_waiting_for_whole_rows_is_sequential_decoding(pipe):
    layout = pipe.image_layout(None, None)
    pipe.scheduler = AutoregressiveScheduler()
    reference = pipe(TEXTS, generator=generators(), **SAMPLING)
    for adaptive in (False, True):
        pipe.scheduler = ZipARScheduler(delay=layout.columns, adaptive=adaptive)
        output = pipe(TEXTS, generator=generators(), **SAMPLING)
        assert torch.equal(output.tokens, reference.tokens)
        assert output.statistics.forward_passes == [layout.rows * layout.columns] * 2  # row ends and tail are free


def test_the_codebook_is_what_the_picture_decoder_looks_up(pipe):
    layout = pipe.image_layout(None, None)
    vectors = pipe.codebook_vectors()
    assert vectors.shape[0] == layout.codebook_size
    assert not vectors.requires_grad
