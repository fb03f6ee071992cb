"""The surface that users of diffusers expect, on the toy Janus."""

import inspect
import logging
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest
import torch

from sjd_pipelines import SCHEDULERS, SeededJacobiScheduler, SJDScheduler
from sjd_pipelines.benchmark.toy import toy_pipeline

PROMPTS = ["a red dog", "two blue cat on a red house"]


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_call_signature_is_diffusers_like(pipe):
    parameters = inspect.signature(pipe.__call__).parameters
    assert list(parameters)[:4] == ["prompt", "negative_prompt", "height", "width"]
    for name in ("num_images_per_prompt", "generator", "output_type", "return_dict", "callback_on_step_end"):
        assert parameters[name].default is not inspect.Parameter.empty


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"window": 3, "scheduler": "sjd"},
            r"no 'window'; it is a setting of the scheduler: pass scheduler=SJDScheduler\(window=\.\.\.\), or",
        ),
        (
            {"window": 3, "scheduler": "autoregressive"},
            r"no 'window'; it is a setting of the schedulers .*, sjd, .*: pass scheduler=, one",
        ),
        ({"dtype": torch.float16}, r"no 'dtype'; it is an option of from_pretrained\."),
        ({"tempreature": 1}, r"no 'tempreature'; did you mean temperature\."),
        ({"num_inference_steps": 20}, r"no 'num_inference_steps'; known are callback_on_step_end, .*, width\."),
    ],
)
def test_an_option_that_is_none_of_a_call_is_told_its_place(pipe, options, message):
    with pytest.raises(TypeError, match=rf"^a call has {message}"):
        pipe("car", **options)


def test_output_types(pipe):
    common = {"prompt": PROMPTS}
    pil = pipe(**common, generator=generators(1, 2)).images
    array = pipe(**common, generator=generators(1, 2), output_type="np").images
    tensor = pipe(**common, generator=generators(1, 2), output_type="pt").images
    latent = pipe(**common, generator=generators(1, 2), output_type="latent")
    assert all(isinstance(image, PIL.Image.Image) and image.size == (8, 8) for image in pil)
    assert array.shape == (2, 8, 8, 3)
    assert tensor.shape == (2, 3, 8, 8)
    assert np.allclose(array, tensor.permute(0, 2, 3, 1).numpy())
    assert np.allclose(np.asarray(pil[0]), (array[0] * 255).round())
    assert torch.equal(latent.images, latent.tokens)
    assert latent.tokens.shape == (2, 16)


def test_tuple_equals_dict(pipe):
    output = pipe(PROMPTS, generator=generators(1, 2), output_type="pt")
    images, tokens, statistics = pipe(PROMPTS, generator=generators(1, 2), output_type="pt", return_dict=False)
    assert torch.equal(images, output.images)
    assert torch.equal(tokens, output.tokens)
    assert statistics.forward_passes == output.statistics.forward_passes


def test_images_per_prompt_stand_side_by_side(pipe):
    output = pipe(PROMPTS, num_images_per_prompt=2, generator=generators(1, 2, 3, 4), output_type="latent")
    for row in range(4):
        single = pipe(PROMPTS[row // 2], generator=generators(row + 1), output_type="latent")
        assert torch.equal(output.tokens[row], single.tokens[0])


def test_one_generator_gives_each_picture_its_seed(pipe):
    output = pipe(PROMPTS, generator=torch.Generator().manual_seed(3), output_type="latent")
    seeds = output.statistics.seeds
    assert len(set(seeds)) == 2
    again = pipe(PROMPTS, generator=torch.Generator().manual_seed(3), output_type="latent")
    assert again.statistics.seeds == seeds
    assert torch.equal(again.tokens, output.tokens)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_recorded_seeds_draw_the_same_pictures_alone_and_in_any_batch(pipe_of, name):
    pipe = pipe_of(name)
    pipe.scheduler = SCHEDULERS[name]()
    output = pipe(PROMPTS, generator=torch.Generator().manual_seed(3), num_images_per_prompt=2, output_type="latent")
    recorded = output.statistics.seeds
    for row, seed in enumerate(recorded):
        alone = pipe(PROMPTS[row // 2], seeds=seed, output_type="latent")
        assert torch.equal(alone.tokens[0], output.tokens[row])
        assert alone.statistics.seeds == [seed]
    order = [3, 0, 2]
    mixed = pipe([PROMPTS[row // 2] for row in order], seeds=[recorded[row] for row in order], output_type="latent")
    assert torch.equal(mixed.tokens, output.tokens[order])


def test_fresh_seeds_draw_again_and_any_integers_do(pipe):
    fresh = pipe(PROMPTS, output_type="latent")
    again = pipe(PROMPTS, seeds=np.array(fresh.statistics.seeds), output_type="latent")
    assert torch.equal(again.tokens, fresh.tokens)
    assert [type(seed) for seed in again.statistics.seeds] == [int, int]
    for seeds in (range(2), (0, 1), [np.uint64(0), np.int32(1)]):
        assert pipe(PROMPTS, seeds=seeds, output_type="latent").statistics.seeds == [0, 1]
    assert pipe(PROMPTS, seeds=[2**63 - 1, 0], output_type="latent").statistics.seeds == [2**63 - 1, 0]


def test_unknown_words_are_logged_once_a_call(pipe, caplog):
    with caplog.at_level(logging.WARNING, "sjd_pipelines"):
        pipe(["a red lemon", "a lemon"], negative_prompt="dogg", num_images_per_prompt=2, output_type="latent")
    line = "This model does not know 'lemon', 'dogg' (close: dog); `sjd info` of it lists its words."
    assert caplog.messages == [line]
    caplog.clear()
    pipe(PROMPTS, negative_prompt="dogg", guidance_scale=1.0, output_type="latent")
    assert caplog.messages == []


def test_without_a_generator_seeds_are_fresh_and_the_global_state_stays(pipe):
    before = torch.get_rng_state()
    first, second = (pipe(PROMPTS, output_type="latent") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.statistics.seeds != second.statistics.seeds


def test_guidance_at_one_runs_no_unconditional_rows(pipe):
    rows = []
    run = pipe.run_transformer
    pipe.run_transformer = lambda embeds, *rest: rows.append(len(embeds)) or run(embeds, *rest)
    try:
        pipe(PROMPTS, guidance_scale=1.0, output_type="latent")
        pipe(PROMPTS, guidance_scale=2.0, output_type="latent")
    finally:
        del pipe.run_transformer
    assert set(rows) == {2, 4}


def test_sampling_settings_matter(pipe):
    def tokens(**settings):
        return pipe(PROMPTS, generator=generators(1, 2), output_type="latent", **settings).tokens

    base = tokens()
    assert not torch.equal(tokens(guidance_scale=1.0), base)
    assert not torch.equal(tokens(temperature=3.0), base)
    assert torch.equal(tokens(top_k=1), tokens(temperature=0))
    assert torch.equal(tokens(top_p=1e-6), tokens(temperature=0))
    assert torch.equal(tokens(top_k=0, top_p=1.0), base)


def test_callback_sees_the_canvas_grow_and_can_stop(pipe):
    pipe.scheduler = SeededJacobiScheduler(window=3)
    seen = []

    def watch(caller, index, committed, tensors):
        assert caller is pipe
        assert set(tensors) == {"canvas", "committed", "acceptance_map"}
        assert committed == tensors["committed"].sum() == (tensors["acceptance_map"] >= 0).sum()
        seen.append((index, tensors["canvas"].clone(), tensors["committed"].clone()))
        return {}

    output = pipe(PROMPTS, generator=generators(1, 2), output_type="latent", callback_on_step_end=watch)
    assert [index for index, _, _ in seen] == list(range(max(output.statistics.forward_passes)))
    for _, canvas, committed in seen:
        for row in range(2):
            assert torch.equal(canvas[row, : committed[row]], output.tokens[row, : committed[row]])

    def stop(caller, index, committed, tensors):
        caller.interrupt = index == 1

    stopped = pipe(PROMPTS, generator=generators(1, 2), output_type="latent", callback_on_step_end=stop)
    assert stopped.statistics.interrupted
    assert max(stopped.statistics.forward_passes) == 2
    assert stopped.statistics.acceptance_map.min() == -1
    after = pipe(PROMPTS, generator=generators(1, 2), output_type="latent")
    assert torch.equal(after.tokens, output.tokens)
    assert not after.statistics.interrupted


def test_callback_receives_only_what_it_asked_for(pipe):
    names = []
    pipe(
        PROMPTS[0],
        output_type="latent",
        callback_on_step_end=lambda pipe, index, committed, tensors: names.append(tuple(tensors)),
        callback_on_step_end_tensor_inputs=["committed"],
    )
    assert set(names) == {("committed",)}


def test_progress_counts_committed_tokens(pipe, monkeypatch):
    updates, totals = [], []

    class Bar:
        def __init__(self, total):
            totals.append(total)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def update(self, count):
            updates.append(count)

    monkeypatch.setattr(pipe, "progress_bar", lambda total: Bar(total), raising=False)
    pipe.scheduler = SJDScheduler(window=4)
    pipe(PROMPTS, output_type="latent")
    assert totals == [32]
    assert sum(updates) == 32


def test_statistics_time_every_stage(pipe):
    statistics = pipe(PROMPTS, generator=generators(1, 2)).statistics
    assert set(statistics.seconds) == {"encode", "decode", "pixels"}
    assert all(seconds > 0 for seconds in statistics.seconds.values())
    assert statistics.scheduler == "AutoregressiveScheduler"
    assert statistics.acceptance_map.shape == (2, 4, 4)


def test_half_precision_runs():
    pipe = toy_pipeline(side=4, codebook_size=16)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(torch.bfloat16)
    output = pipe(PROMPTS, output_type="pt")
    assert output.images.dtype == torch.float32
    assert torch.isfinite(output.images).all()
    assert pipe.dtype == torch.bfloat16


def test_model_offload_loads_before_the_submodules_are_called():
    pipe = toy_pipeline(side=4, codebook_size=16)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(PROMPTS, generator=generators(1, 2), output_type="latent").tokens
    pipe.enable_model_cpu_offload(device="cpu")  # the hooks of a GPU, on the device that is always there
    for _ in range(2):
        assert torch.equal(pipe(PROMPTS, generator=generators(1, 2), output_type="latent").tokens, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, r"prompt is an empty list; pass at least one prompt\."),
        ({"prompt": 3}, r"prompt must be a string or a list of strings, got int"),
        ({"prompt": ["a", None]}, r"prompt must be a string or a list of strings"),
        ({"negative_prompt": ["a", "b", "c"]}, r"negative_prompt: got 3 for 2 prompts; pass one, or one per prompt\."),
        ({"prompt": ["a", " "]}, r"prompt 2 is empty; say what to draw\."),
        ({"prompt": "a \udc80"}, r"prompt 1 is not valid text: '\\udc80' at character 3\."),
        ({"negative_prompt": "\ud83d"}, r"negative_prompt is not valid text: '\\ud83d' at character 1\."),
        ({"guidance_scale": "5"}, r"guidance_scale must be a number from 0 to 1000, got '5'\."),
        ({"guidance_scale": 1e300}, r"guidance_scale must be a number from 0 to 1000, got 1e\+300\."),
        ({"temperature": -1.0}, r"temperature must be 0 or a number from 1e-06 to 1000, got -1\.0\."),
        ({"temperature": float("nan")}, r"temperature must be 0 or a number from 1e-06 to 1000, got nan\."),
        ({"temperature": 1e-40}, r"temperature must be 0 or a number from 1e-06 to 1000, got 1e-40\."),
        ({"top_k": 2.0}, r"top_k must be an integer of at least 0, got 2\.0\."),
        ({"top_p": 1.5}, r"top_p must be a number above 0, at most 1, got 1\.5\."),
        ({"top_p": 0.0}, r"top_p must be a number above 0, at most 1, got 0\.0\."),
        ({"num_images_per_prompt": 0}, r"num_images_per_prompt must be an integer from 1 to 65536, got 0\."),
        ({"num_images_per_prompt": 10**400}, r"num_images_per_prompt must be .*, got an integer of 401 digits\."),
        ({"width": 8.0}, r"width must be an integer from 1 to 16384, got 8\.0\."),
        ({"height": True}, r"height must be an integer from 1 to 16384, got True\."),
        ({"output_type": "jpeg"}, r"output_type must be one of pil, np, pt, latent; got 'jpeg'\."),
        ({"height": 512}, r"This model draws 8x8 pixels only, got 512x8\."),
        ({"generator": 3}, r"generator must be a torch\.Generator or a list of them\."),
        ({"generator": [torch.Generator()]}, r"generator: got 1 for 2 pictures; pass one, or one per picture\."),
        ({"seeds": 3}, r"seeds: got 1 for 2 pictures; pass one per picture\."),
        ({"seeds": [1, 2, 3]}, r"seeds: got 3 for 2 pictures; pass one per picture\."),
        ({"seeds": [1, -1]}, r"seeds must be integers from 0 to 2\*\*63 - 1, got -1\."),
        ({"seeds": [1, 2**63]}, r"seeds must be integers from 0 to 2\*\*63 - 1, got 9223372036854775808\."),
        ({"seeds": [1, 2.0]}, r"seeds must be integers from 0 to 2\*\*63 - 1, got 2\.0\."),
        ({"seeds": [1, True]}, r"seeds must be integers from 0 to 2\*\*63 - 1, got True\."),
        ({"seeds": "12"}, r"seeds must be integers from 0 to 2\*\*63 - 1, got '1'\."),
        ({"seeds": [1, 2], "generator": torch.Generator()}, "generator and seeds exclude each other; pass one of"),
        ({"prompt": "a " * 600}, r"'a a a .* …' takes 604 tokens, .* 496 are the most .*; shorten it by 108\."),
        ({"prompt": "a", "negative_prompt": "a " * 600}, r"'a a a .* …' takes 604 tokens"),
        (
            {"callback_on_step_end_tensor_inputs": ["latents"]},
            r"must be a list of some of canvas, committed, acceptance_map; got \['latents'\]\.",
        ),
        (
            {"callback_on_step_end_tensor_inputs": 3},
            "must be a list of some of canvas, committed, acceptance_map; got 3",
        ),
        ({"callback_on_step_end": "print"}, "callback_on_step_end must be a function, got 'print'"),
    ],
)
def test_bad_input_is_refused_before_any_work(pipe, monkeypatch, arguments, message):
    def fail(*_):
        raise AssertionError("work started")

    monkeypatch.setattr(pipe, "run_transformer", fail, raising=False)
    with pytest.raises(ValueError, match=message):
        pipe(**({"prompt": PROMPTS} | arguments))


def test_numbers_and_lists_may_be_those_of_other_libraries(pipe):
    sampling = {"guidance_scale": 2.0, "temperature": 0.5, "top_k": 8, "top_p": 0.5, "height": 8}
    plain = pipe(PROMPTS, num_images_per_prompt=1, seeds=[3, 4], output_type="latent", **sampling)
    strange = {
        "guidance_scale": torch.tensor(2.0),
        "temperature": Fraction(1, 2),
        "top_k": np.int64(8),
        "top_p": np.float32(0.5),
        "height": np.uint16(8),
    }
    for seeds in (torch.tensor([3, 4]), np.array([3, 4]), (3, 4), iter([3, 4]), range(3, 5)):
        given = {"prompt": tuple(PROMPTS), "num_images_per_prompt": np.array(1), "seeds": seeds, **strange}
        again = pipe(**given, output_type="latent")
        assert torch.equal(again.tokens, plain.tokens)
        assert again.statistics.seeds == [3, 4]
    expected = pipe(PROMPTS, negative_prompt=["car", "dog"], generator=generators(1, 2), output_type="latent")
    given = {"negative_prompt": ("car", "dog"), "generator": tuple(generators(1, 2))}
    assert torch.equal(pipe(PROMPTS, output_type="latent", **given).tokens, expected.tokens)
    one = pipe("car", seeds=torch.tensor(5), output_type="latent")
    assert torch.equal(one.tokens, pipe("car", seeds=5, output_type="latent").tokens)
