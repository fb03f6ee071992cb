"""A toy of 8 x 8 tokens, so that a tree is small beside the picture, and four pictures of it.

Every test also runs as on an accelerator, where no look is free; tests that take long do so if slow ones run.
"""

from contextlib import nullcontext

import pytest
import torch

from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.decoding.look import looks

PROMPTS = ["a red dog", "two blue cat on a red house", "car", "a dog"]
QUICK = ("test_sibling_verification", "test_verification")


def pytest_generate_tests(metafunc):
    marks = () if metafunc.definition.path.stem in QUICK else pytest.mark.slow
    ways = [pytest.param(True, id="free-looks"), pytest.param(False, id="costly-looks", marks=marks)]
    metafunc.parametrize("look", ways, indirect=True)


@pytest.fixture(autouse=True)
def look(request):
    with nullcontext() if request.param else looks(free=False):
        yield


@pytest.fixture(scope="module")
def wide(device):
    pipe = toy_pipeline(side=8, codebook_size=32, logit_scale=1.5).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, scheduler):
    pipe.scheduler = scheduler
    seeds = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    return pipe(PROMPTS, guidance_scale=2.0, generator=seeds, output_type="latent")
