"""What no state of a device could hold is refused before any work."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from sjd_pipelines import AutoregressiveScheduler, CoupledSJDScheduler
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.pipelines.room import check_room, total_memory


def test_the_estimate_is_what_a_run_keeps(toy):
    layout = toy.image_layout(None, None)
    text = toy.model.config.text_config
    token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * 4
    scheduler = AutoregressiveScheduler()
    slots = layout.num_tokens + scheduler.margin(layout)
    assert toy.picture_bytes(layout, scheduler, guided=False) == slots * token
    assert toy.picture_bytes(layout, scheduler, guided=True) == 2 * slots * token
    speculative = CoupledSJDScheduler(window=4)  # keeps laws
    slots = layout.num_tokens + speculative.margin(layout)
    laws = speculative.law_slots(layout) * layout.vocabulary_size * 4
    assert laws
    assert toy.picture_bytes(layout, speculative, guided=True) == 2 * slots * token + laws


def test_too_many_pictures_are_refused(toy, toy_flow, monkeypatch):
    with pytest.raises(
        ValueError, match=r"^655360000 pictures at once need [\d,.]+ GiB beside the weights, and cpu has"
    ):
        toy(["cat"] * 10_000, num_images_per_prompt=2**16)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=3 * 2**20))
    for pipe in (toy, toy_flow):
        with pytest.raises(
            ValueError, match=r"^999 pictures at once need .* has 0\.0 GiB in all; draw fewer or smaller"
        ):
            pipe(["cat"] * 999)
        pipe("cat")


def test_the_whole_memory_counts_used_or_not():
    total = psutil.virtual_memory().total
    assert total_memory(torch.device("cpu")) == total
    assert total_memory(torch.device("meta")) is None
    check_room(total, torch.device("cpu"), 1)
    with pytest.raises(ValueError, match="on device meta, which holds shapes and no numbers; load it again"):
        toy_pipeline(4, 16).to("meta")("car")
    with pytest.raises(ValueError, match="2 pictures at once need"):
        check_room(total + 1, torch.device("cpu"), 2)
