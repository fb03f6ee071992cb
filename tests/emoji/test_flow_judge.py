"""The judge of the small pictures must read every true one, and nothing in an empty or a noisy one."""

import pytest
import torch

from sjd_pipelines.emoji.flow_judge import read_pictures, score_pictures
from sjd_pipelines.emoji.flow_world import PALEST, SIDE, PictureStream
from sjd_pipelines.emoji.glyphs import OBJECTS

LABELS = torch.arange(len(OBJECTS))


@pytest.fixture(scope="module")
def pictures():
    return PictureStream(len(OBJECTS), seed=3).render(LABELS) / 2 + 0.5


def test_every_glyph_is_read(pictures):
    scores = score_pictures(pictures, LABELS)
    assert (scores["n"], scores["object"], scores["unread"]) == (len(OBJECTS), 1, 0)
    assert scores["explained"] > 0.99
    assert (read_pictures(pictures).grounds >= PALEST - 1e-6).all()
    assert score_pictures(pictures, LABELS.roll(1))["object"] == 0


def test_blur_and_noise_are_forgiven(pictures):
    noise = 0.03 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)
    assert score_pictures(blurred + noise, LABELS)["object"] > 0.9


def test_nothing_is_read_where_nothing_is(pictures):
    generator = torch.Generator().manual_seed(0)
    empty = torch.full((2, 3, SIDE, SIDE), 0.8)
    assert read_pictures(empty).glyphs.tolist() == [-1, -1]
    assert read_pictures(torch.rand(2, 3, SIDE, SIDE, generator=generator)).glyphs.tolist() == [-1, -1]


def test_pictures_of_a_stream_depend_on_its_seed_alone():
    first, second, other = (PictureStream(3, seed).next() for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (3, 3, SIDE, SIDE)
    assert first[0].abs().max() <= 1


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"reads \[B, 3, 32, 32\] pictures, got shape \(3, 32, 32\)"):
        read_pictures(torch.zeros(3, 32, 32))
