"""What slots are drawn anew."""

import torch

from sjd_pipelines.decoding.look import look_is_free
from sjd_pipelines.schedulers.verification import rejected_slots


def test_rejected_slots_come_first_and_in_order():
    keep = torch.tensor([[True, False, True, False, False], [True, True, False, True, True]])
    slots = rejected_slots(keep)
    count = 3 if look_is_free(keep) else 5
    assert slots[0].tolist() == [1, 3, 4, 0, 2][:count]
    assert slots[1].tolist() == [2, 0, 1, 3, 4][:count]  # filled up with slots that are kept


def test_nothing_rejected_is_no_slot():
    keep = torch.ones(2, 3, dtype=torch.bool)
    assert rejected_slots(keep).shape == (2, 0 if look_is_free(keep) else 3)
    assert rejected_slots(torch.ones(2, 0, dtype=torch.bool)).shape == (2, 0)
