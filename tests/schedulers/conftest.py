"""A toy of 8 x 8 tokens, so that a tree is small beside the picture, and four pictures of it."""

import pytest
import torch

from sjd_pipelines.benchmark.toy import toy_pipeline

PROMPTS = ["a red dog", "two blue cat on a red house", "car", "a dog"]


@pytest.fixture(scope="module")
def wide():
    pipe = toy_pipeline(side=8, codebook_size=32, logit_scale=1.5)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, scheduler):
    pipe.scheduler = scheduler
    seeds = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    return pipe(PROMPTS, guidance_scale=2.0, generator=seeds, output_type="latent")
