"""Measurements that outlive an interruption."""

import json

import pytest

from sjd_pipelines.benchmark.journal import Journal

SETTINGS = {"method": {"prompts": 4, "windows": (1, 2)}}


def test_what_was_measured_is_not_measured_again():
    files, calls = [], []
    journal = Journal(save=lambda value: files.append(json.dumps(value)))
    journal.begin(SETTINGS)
    assert [journal.measure(key, lambda value: calls.append(value) or value, 7) for key in ("a", "a", "b")] == [7] * 3
    assert calls == [7, 7]
    assert len(files) == 2
    again = Journal(json.loads(files[0]))
    again.begin(SETTINGS)
    assert again.measure("a", pytest.fail) == 7
    assert again.measure("b", lambda: 8) == 8


def test_other_settings_are_refused_by_name():
    saved = {}
    journal = Journal(save=saved.update)
    journal.begin(SETTINGS)
    journal.measure("a", lambda: 1)
    with pytest.raises(ValueError, match=r"^The unfinished run has other settings: method\.prompts\.$"):
        Journal(saved).begin({"method": {"prompts": 5, "windows": [1, 2]}})


def test_parts_are_saved_with_the_whole():
    saved = {}
    journal = Journal(save=saved.update)
    journal.begin(SETTINGS)
    part = journal.part("inner")
    part.begin({"method": {"repeats": 1}})
    part.measure("a", lambda: 3)
    again = Journal(json.loads(json.dumps(saved)))
    again.begin(SETTINGS)
    inner = again.part("inner")
    with pytest.raises(ValueError, match=r"method\.repeats"):
        again.part("inner").begin({"method": {"repeats": 2}})
    inner.begin({"method": {"repeats": 1}})
    assert inner.measure("a", pytest.fail) == 3
