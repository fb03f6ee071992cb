"""Numbers that are not finite stop a run, whichever scheduler decodes."""

import pytest
import torch

from sjd_pipelines import SCHEDULERS, AutoregressiveScheduler, SeededJacobiScheduler
from sjd_pipelines.benchmark.toy import toy_par_pipeline, toy_pipeline
from sjd_pipelines.decoding import NotFiniteError
from sjd_pipelines.decoding.look import looks

PROMPTS = ["a red dog", "car"]


@pytest.fixture
def broken():
    pipe = toy_pipeline(side=4, codebook_size=16)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("free", [True, False], ids=["free looks", "no looks"])
def test_no_scheduler_draws_with_broken_weights(broken, free):
    for parameter in broken.model.parameters():
        parameter.data.fill_(torch.nan)
    first, _ = next(broken.model.named_parameters())
    for name, cls in SCHEDULERS.items():
        if cls.parallel:  # decodes another kind of model
            continue
        for temperature in (1.0, 0.0):
            with looks(free), pytest.raises(NotFiniteError) as error:
                broken(PROMPTS, scheduler=cls(), output_type="latent", temperature=temperature)
            assert str(error.value) == (
                "The model's logits are not finite in float32: image 1 of 2, pass 1, after 0 tokens. "
                f"model.{first} is not finite: the file is damaged, or its dtype is too small for it."
            ), name


@pytest.mark.parametrize("free", [True, False], ids=["free looks", "no looks"])
def test_a_model_that_makes_tokens_in_groups_does_not_either(free):
    pipe = toy_par_pipeline(4, 16)
    pipe.set_progress_bar_config(disable=True)
    for parameter in pipe.transformer.parameters():
        parameter.data.fill_(torch.nan)
    for temperature in (1.0, 0.0):
        with (
            looks(free),
            pytest.raises(NotFiniteError, match=r"^The model's logits are not finite in float32: image 1"),
        ):
            pipe([1, 2], output_type="latent", temperature=temperature)


def test_one_broken_weight_is_named(broken):
    broken.model.model.generation_embeddings.weight.data[:] = torch.inf
    with pytest.raises(
        NotFiniteError, match=r"pass 2, after 1 tokens\. model\.model\.generation_embeddings\.weight is"
    ):
        broken("car", scheduler=AutoregressiveScheduler(), output_type="latent")


@pytest.mark.parametrize("scheduler", [AutoregressiveScheduler(), SeededJacobiScheduler()])
def test_an_overflow_says_which_format_it_was(broken, scheduler):
    head = broken.model.model.generation_head
    head.vision_head.weight.data.mul_(1e5)
    broken(PROMPTS, scheduler=scheduler, output_type="latent")  # float32 has room
    head.vision_head.weight.data.clamp_(-60000, 60000)
    broken.to(torch.float16)
    with pytest.raises(
        NotFiniteError, match=r"not finite in float16: .* All weights are finite, so a sum has overflowed"
    ):
        broken(PROMPTS, scheduler=scheduler, output_type="latent")
