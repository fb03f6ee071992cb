"""Fixtures: a tiny random Janus shared by the whole run: 4 x 4 tokens, 16 codebook entries."""

import pytest
import torch

from sjd_pipelines.benchmark.toy import toy_pipeline


@pytest.fixture(scope="session")
def toy():
    pipe = toy_pipeline(side=4, codebook_size=16)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(toy):
    """The toy with its scheduler restored afterwards."""
    before = toy.scheduler
    yield toy
    toy.scheduler = before


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]
