"""Whole pictures on device `meta`, which has shapes and no numbers: whatever looks at them raises.

Runs of the real loop with a real model. A read of the device is answered with made-up progress, and counted.
"""

import pytest
import torch

from sjd_pipelines import RowParallelScheduler, SeededJacobiScheduler, SJDScheduler
from sjd_pipelines.benchmark.toy import toy_par_pipeline, toy_pipeline
from sjd_pipelines.decoding import Sampling
from sjd_pipelines.schedulers import SCHEDULERS

from ..meta import watched, without_numbers

SETTINGS = [
    *((name, {}) for name in SCHEDULERS),
    ("par", {"window": 8}),
    ("seeded-jacobi", {"window": 5, "initialise": "repeat-left"}),
    ("seeded-jacobi", {"window": "auto"}),
    ("sjd", {"window": 5, "initialise": "random"}),
    ("sjd++", {"window": 5, "confidence": "probability"}),
    ("coupled-sjd", {"window": 5, "coupling": "gumbel"}),
    ("gsd", {"window": 5, "distance": None}),
    ("lantern", {"window": 5, "rule": "annealed"}),
    ("lantern", {"window": 5, "residual": "release"}),
    ("lantern-eagle", {"rule": "annealed"}),
    ("sjd-pac", {"window": 1}),
    ("zipar", {"delay": 1, "adaptive": True}),
    ("pjd", {"delay": 1, "coupled": True}),
]
SAMPLED, GREEDY = Sampling(2.0, 0.7, top_k=8, top_p=0.9), Sampling(temperature=0)


@pytest.fixture(scope="module")
def models():
    """By whether they make several tokens at once."""
    return {False: toy_pipeline(side=4, codebook_size=16).to("meta"), True: toy_par_pipeline(4, 16).to("meta")}


@pytest.fixture
def encoded(toy, par_toy):
    def encode(guided, parallel):
        prompts = ["0", "1"] if parallel else ["a red dog", "car"]
        return without_numbers((par_toy if parallel else toy).encode_prompt(prompts, None, guided, 1))

    return encode


@pytest.fixture
def watch(models, encoded):
    def run(scheduler, sampling=SAMPLED):
        prompt = encoded(sampling.guided, scheduler.parallel)
        return watched(models[scheduler.parallel], prompt, scheduler, sampling)

    return run


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_pass_reads_the_device_once_and_uploads_nothing(watch, name, settings):
    scheduler = SCHEDULERS[name](**settings)
    uploads = int(isinstance(scheduler, RowParallelScheduler))  # rows are laid out on the host
    assert set(watch(scheduler)) == {(1, uploads)}


def test_greedy_sampling_reads_nothing_either(watch):
    assert set(watch(SJDScheduler(window=4), GREEDY)) == {(1, 0)}


class SecondRead(SeededJacobiScheduler):
    def redraft(self, slots):
        slots.accepted.tolist()
        return super().redraft(slots)


class UploadedTable(SeededJacobiScheduler):
    def redraft(self, slots):
        return super().redraft(slots) + slots.drafts.new_tensor([[0]])


class HostIndex(SeededJacobiScheduler):
    def redraft(self, slots):
        return super().redraft(slots)[:, torch.arange(slots.target.shape[1])]


class Peek(SeededJacobiScheduler):
    def redraft(self, slots):
        return super().redraft(slots) if slots.keep.any() else slots.seeded_choice


@pytest.mark.parametrize(("broken", "counts"), [(SecondRead, (2, 0)), (UploadedTable, (1, 1)), (HostIndex, (1, 1))])
def test_what_breaks_the_rule_is_counted(watch, broken, counts):
    assert set(watch(broken(window=4))) == {counts}


def test_a_look_at_numbers_raises(watch):
    with pytest.raises(RuntimeError, match="meta tensors"):
        watch(Peek(window=4))
