"""What slots are drawn anew."""

import torch

from sjd_pipelines.schedulers.verification import rejected_slots


def test_rejected_slots_come_first_and_in_order():
    keep = torch.tensor([[True, False, True, False, False], [True, True, False, True, True]])
    slots = rejected_slots(keep)
    assert slots[0].tolist() == [1, 3, 4]
    assert slots[1].tolist() == [2, 0, 1]  # filled up with slots that are kept


def test_nothing_rejected_is_no_slot():
    assert rejected_slots(torch.ones(2, 3, dtype=torch.bool)).shape == (2, 0)
    assert rejected_slots(torch.ones(2, 0, dtype=torch.bool)).shape == (2, 0)
