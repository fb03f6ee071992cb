"""The cost of a step on synthetic laws."""

import pytest

from sjd_pipelines.benchmark.step_cost import measure_step_costs
from sjd_pipelines.schedulers import SCHEDULERS


def test_every_scheduler_is_measured():
    costs = measure_step_costs(window=4, codebook_size=64, batch_size=2, side=4, passes=5)
    assert [cost.name for cost in costs] == list(SCHEDULERS)
    for cost in costs:
        assert cost.label == SCHEDULERS[cost.name].label
        assert cost.plan > 0
        assert cost.step > 0
        assert cost.tokens >= 1
    by_name = {cost.name: cost for cost in costs}
    assert by_name["autoregressive"].slots == 1
    assert by_name["sjd"].window == 4
    assert by_name["lantern"].codebook > 0
    assert by_name["sjd"].codebook == 0


def test_drafts_are_accepted_as_often_as_laws_agree():
    same, other = (measure_step_costs(["sjd"], 4, 64, 2, 4, passes=20, change=change)[0] for change in (0.0, 3.0))
    assert same.tokens == pytest.approx(5, abs=1.1)  # the last window of an image is shorter
    assert other.tokens < same.tokens
