"""A tiny Janus with certain laws that tokens change, and trajectories of it."""

import pytest

from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.distillation.trajectories import Settings, record

PROMPTS = [{"prompt": "a red dog"}, {"prompt": "two cat on a blue house"}, {"prompt": "car"}]


@pytest.fixture
def teacher():
    pipe = toy_pipeline(side=4, codebook_size=16, logit_scale=3.0)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def drawn(teacher, tmp_path):
    """A folder with two files, of two pictures and one."""
    folder = tmp_path / "drawn"
    assert record(teacher, PROMPTS, folder, SETTINGS) == 3
    return folder


SETTINGS = Settings(window=5, batch_size=2, seed=7, guidance_scale=2.0)
