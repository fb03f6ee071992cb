"""Training batches: one caption length each, a function of seed and index, and right about what they show."""

import numpy as np
import torch

from sjd_pipelines.emoji.captions import BOI, BOS, PAD
from sjd_pipelines.emoji.codes import BACKGROUND_CODES
from sjd_pipelines.emoji.scenes import RELATIONS, place
from sjd_pipelines.training.batches import MIXED, NOWHERE, Batches, captioned_scenes, draw_batch, noun_and_part
from sjd_pipelines.training.phases import Phase


def batch(seed=0, mix=MIXED, size=8, **options):
    return draw_batch(np.random.default_rng(seed), mix, size, **options)


def test_batches_have_one_caption_length_and_drop_some_captions():
    dropped = 0
    for seed in range(20):
        rows = batch(seed, caption_dropout=0.5)
        assert rows.tokens.shape == rows.light.shape == (8, 256)
        assert (rows.prompt[:, 0] == BOS).all()
        assert (rows.prompt[:, -1] == BOI).all()
        blank = rows.prompt[:, 1] == PAD
        assert (rows.part[blank] == NOWHERE).all()  # nothing is asked where nothing is said
        dropped += int(blank.sum())
    assert 40 < dropped < 120


def test_lengths_come_as_often_as_in_single_draws():
    def lengths(size):
        draws = (captioned_scenes(np.random.default_rng([size, i]), MIXED, size) for i in range(400))
        return np.bincount([len(rows[0][1]) for rows in draws], minlength=30) / 400

    assert np.abs(lengths(1) - lengths(3)).max() < 0.1


def test_a_rare_length_fills_its_batch():
    rows = captioned_scenes(np.random.default_rng(0), (1.0, 0.0, 0.0), 64)
    assert len(rows) == 64
    assert len({len(prompt) for _, prompt in rows}) == 1


def test_a_batch_is_a_function_of_seed_and_index():
    phases = (Phase(8, (1.0, 0.0, 0.0)), Phase(8, (0.0, 0.0, 1.0)))
    batches = Batches(phases, 4, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(batches[1], Batches(phases, 4, seed=3)[1]))
    assert not torch.equal(batches[0].tokens, batches[1].tokens)
    assert not torch.equal(batches[1].tokens, Batches(phases, 4, seed=4)[1].tokens)
    assert (batches[1].part == NOWHERE).all()  # the first phase has single objects only
    assert (batches[2].part >= 0).any()


def test_objects_begin_where_their_first_token_is():
    for seed in range(10):
        rows = batch(seed)
        glyphs = rows.tokens >= BACKGROUND_CODES
        assert torch.equal(rows.begins[:, 0], glyphs.int().argmax(1))
        for row, begins in enumerate(rows.begins.tolist()):
            assert begins == sorted(begins)
            assert all(glyphs[row, begin] for begin in begins if begin < 256)
            if begins[0] >= 16:
                assert not glyphs[row, begins[0] - 16]  # nothing above


def test_the_part_is_where_the_second_object_stands():
    seen = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for scene, prompt in captioned_scenes(rng, (0.0, 0.0, 1.0), 4):
            first, second = place(scene, rng)
            down, right = second.row - first.row, second.column - first.column
            side = ("left", "right")[right > 0] if abs(right) > abs(down) else ("above", "below")[down > 0]
            _, part = noun_and_part(scene, prompt)
            assert RELATIONS[part] == side
            seen.add(side)
    assert seen == set(RELATIONS)
