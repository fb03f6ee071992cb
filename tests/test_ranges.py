"""Numbers in all the forms that scripts send them in."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from sjd_pipelines.ranges import Range, plain, shown

WINDOW, SHARE, DEGREE = Range(1, 64, whole=True), Range(0, 1, above=True), Range(1e-6, 1000, zero=True)
SEED = Range(0, 2**63 - 1, whole=True)


@pytest.mark.parametrize(
    "value", [16, np.int64(16), np.uint8(16), np.array(16), torch.tensor(16), torch.tensor(16, dtype=torch.int8)]
)
def test_whole_numbers_are_whole_numbers_whoever_made_them(value):
    number = WINDOW.check("window", value)
    assert (type(number), number) == (int, 16)


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), Fraction(1, 2), torch.tensor(0.5), 1, np.int8(1)]
)
def test_so_are_other_numbers(value):
    assert type(SHARE.check("top_p", value)) in (int, float)


@pytest.mark.parametrize(
    "value",
    [True, np.True_, torch.tensor(True), 1.0, np.float64(16), "16", None, 1j, [16], np.array([16]), torch.tensor([16]),
     torch.tensor(16, device="meta"), Decimal(16), Fraction(16), 0, 65, -(10**400), 10**400, math.nan, math.inf,
     torch.tensor(math.nan), Fraction(10**400), np.zeros(1000), "9" * 1000, [10**5000], object()],
    ids=lambda value: shown(value).partition(" at 0x")[0],
)  # fmt: skip
def test_what_is_no_window_is_refused_and_quoted_shortly(value):
    with pytest.raises(ValueError, match=r"^window must be an integer from 1 to 64, got .*\.$") as refused:
        WINDOW.check("window", value)
    assert len(str(refused.value)) < 120
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("limits", "value", "refusal"),
    [
        (SHARE, 0, "must be a number above 0, at most 1, got 0"),
        (SHARE, 1.5, "must be a number above 0, at most 1, got 1.5"),
        (DEGREE, 1e-40, "must be 0 or a number from 1e-06 to 1000, got 1e-40"),
        (DEGREE, Fraction(1, 10**9), "must be 0 or a number from 1e-06 to 1000, got Fraction(1, 1000000000)"),
        (Range(0), -1, "must be a number of at least 0, got -1"),
        (Range(0), math.inf, "must be a number of at least 0, got inf"),
        (Range(0, above=True), 0.0, "must be a number above 0, got 0.0"),
        (SEED, 2**63, "must be an integer from 0 to 2**63 - 1, got 9223372036854775808"),
        (SEED, 10**400, "must be an integer from 0 to 2**63 - 1, got an integer of 401 digits"),
        (WINDOW, torch.tensor([[1.0], [2.0]]), "must be an integer from 1 to 64, got tensor([[1.], [2.]])"),
    ],
)
def test_refusals(limits, value, refusal):
    assert limits.refusal(value) == refusal


def test_the_ends_are_in():
    for limits, values in ((WINDOW, (1, 64)), (SHARE, (1,)), (DEGREE, (0, 0.0, 1e-6, 1000)), (SEED, (0, 2**63 - 1))):
        assert [limits.refusal(value) for value in values] == [None] * len(values)


def test_a_truth_value_stays_one():
    assert plain(np.True_) is True
    assert plain(torch.tensor(False)) is False
