"""What torch is set to around a call, and how a pipeline came here, do not change what it draws."""

import contextlib
import copy
import pickle
import threading

import pytest
import torch

from sjd_pipelines import SCHEDULERS, SeededJacobiScheduler, SJDAutoRegressivePipeline, SJDScheduler

from .tiny import MEMBERS

PASSES = 6  # of the bundled model


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS = {
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default float16": lambda: default_dtype(torch.float16),
    "default float64": lambda: default_dtype(torch.float64),
    "default device": lambda: default_device("meta"),  # whatever is made there by mistake has no numbers
    "device block": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": deterministic,
    "inference mode": torch.inference_mode,
    "gradients": torch.enable_grad,
}
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda value: pickle.loads(pickle.dumps(value))}


@pytest.fixture(scope="module")
def bundled():
    pipe = SJDAutoRegressivePipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def begun(pipe, seed=1):
    """The tokens of the first passes of a picture of the bundled model, and its pixels."""

    def stop(pipe, index, committed, tensors):
        pipe.interrupt = index + 1 == PASSES

    output = pipe("two cats on a red background", seeds=seed, output_type="pt", callback_on_step_end=stop)
    return output.statistics.acceptance_map, output.tokens, output.images


def equal(one, other):
    return all(torch.equal(*pair) and pair[0].dtype == pair[1].dtype for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings_do_not_change_a_picture(bundled, name):
    plain = begun(bundled)
    with SURROUNDINGS[name]():
        assert equal(begun(bundled), plain)
    assert equal(begun(bundled), plain)


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_draws_the_same_and_is_its_own(bundled, name):
    plain = begun(bundled)
    other = COPIES[name](bundled)
    assert equal(begun(other), plain)
    other.scheduler = SJDScheduler()
    other.model.model.generation_head.vision_head.weight.data.zero_()
    assert not equal(begun(other), plain)
    assert equal(begun(bundled), plain)


def test_threads_draw_what_they_would_draw_alone(bundled):
    alone = [begun(bundled, seed) for seed in range(3)]
    drawn = {}
    threads = [
        threading.Thread(target=lambda seed=seed: drawn.update({seed: begun(bundled, seed)})) for seed in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(equal(drawn[seed], picture) for seed, picture in enumerate(alone))


@pytest.mark.parametrize("name", [name for name, cls in SCHEDULERS.items() if not cls.parallel])
def test_no_scheduler_makes_numbers_of_a_default_kind(toy, name):
    def draw():
        options = {"temperature": 0.8, "top_p": 0.9, "output_type": "pt", "seeds": [1, 2]}
        output = toy(["a red dog", "car"], scheduler=copy.deepcopy(scheduler), **options)
        return output.tokens, output.images

    scheduler = SCHEDULERS[name]()
    plain = draw()
    for surroundings in ("default bfloat16", "default float16", "default float64", "default device", "autocast"):
        with SURROUNDINGS[surroundings]():
            assert equal(draw(), plain), surroundings


@pytest.mark.parametrize("member", MEMBERS)
def test_no_family_does_either(request, member):
    def draw():
        output = pipe(prompts, seeds=range(len(prompts)), scheduler=SeededJacobiScheduler(), output_type="pt")
        return output.tokens, output.images

    pipe, prompts = request.getfixturevalue(member), list(MEMBERS[member].prompts)
    plain = draw()
    for surroundings in ("default float64", "default float16", "default device", "autocast"):
        with SURROUNDINGS[surroundings]():
            assert equal(draw(), plain), surroundings


def test_tiles_are_no_different(toy):
    toy.enable_vae_tiling(3, 1)
    try:
        tokens = toy("car", seeds=1, output_type="latent").tokens
        layout = toy.image_layout(None, None)
        with torch.no_grad():
            plain = toy.decode_tokens(tokens, layout)
            with SURROUNDINGS["default float64"]():
                assert torch.equal(toy.decode_tokens(tokens, layout), plain)
    finally:
        toy.disable_vae_tiling()
