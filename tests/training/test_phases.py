"""The course of a run: which phase it is in, and how fast it learns there."""

from itertools import pairwise

import pytest

from sjd_pipelines.training.phases import PHASES, Phase, phase_at, scaled, total_pictures

COURSE = (Phase(100, (1, 0, 0)), Phase(200, (0, 0, 1), rates=(1.0, 0.5)), Phase(100, (0, 1, 0), rates=(0.5, 0.0)))


@pytest.mark.parametrize(
    ("images", "index", "rate"),
    [(0, 0, 1), (99, 0, 1), (100, 1, 1), (200, 1, 0.75), (300, 2, 0.5), (350, 2, 0.25), (400, 2, 0), (9999, 2, 0)],
)
def test_place_in_the_course(images, index, rate):
    phase, factor = phase_at(COURSE, images)
    assert phase is COURSE[index]
    assert factor == pytest.approx(rate)


def test_a_scaled_course_is_the_same_at_the_same_share():
    longer = scaled(COURSE, 2.5)
    assert total_pictures(longer) == 1000
    for images in (0, 120, 240, 398):
        phase, rate = phase_at(COURSE, images)
        scaled_phase, scaled_rate = phase_at(longer, round(2.5 * images))
        assert scaled_phase.mix == phase.mix
        assert scaled_rate == pytest.approx(rate)


def test_the_recipe_ends_at_rest_and_knows_every_kind():
    assert PHASES[-1].rates[1] == 0
    for phase, following in pairwise(PHASES):
        assert phase.rates[1] == following.rates[0]  # no jump
    for phase in PHASES:
        assert sum(phase.mix) == pytest.approx(1)
        assert min(phase.mix) > 0
