"""The flow pipeline: classes, seeds, guidance, outputs, callbacks, and what it refuses."""

import gc
import math

import numpy as np
import pytest
import torch

from sjd_pipelines import (
    FlowOverflowError,
    FrontierFlowSolver,
    GaussSeidelJacobiFlowSolver,
    JacobiFlowSolver,
    OverlappingFlowSolver,
    SequentialFlowSolver,
    SJDScheduler,
    TarFlowPipeline,
)
from sjd_pipelines.benchmark.toy_flow import toy_flow_pipeline
from sjd_pipelines.models.tarflow import FlowCache


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def tiny_pipeline(**options):
    pipe = toy_flow_pipeline(**options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pixels(pipe, *args, **options):
    return pipe(*args, output_type="pt", **options).images


def test_classes_by_name_and_index(flow_pipe):
    by_name = pixels(flow_pipe, ["dog", "Red  Fox "], seeds=[1, 2])
    assert torch.equal(by_name, pixels(flow_pipe, [1, "2"], seeds=[1, 2]))
    assert not torch.allclose(by_name[:1], pixels(flow_pipe, "cat", seeds=[1]), atol=1e-3)
    assert pixels(flow_pipe, seeds=[1]).shape == (1, 3, 8, 8)
    assert flow_pipe.class_names() == ["cat", "dog", "red fox"]


def test_a_picture_is_the_same_in_any_batch(flow_pipe):
    together = flow_pipe(["dog", "cat"], num_images_per_prompt=2, seeds=[4, 5, 6, 7], output_type="pt")
    assert together.statistics.seeds == [4, 5, 6, 7]
    for row, name in enumerate(["dog", "dog", "cat", "cat"]):
        assert torch.allclose(together.images[row], pixels(flow_pipe, name, seeds=4 + row)[0], atol=1e-5)


def test_generators_and_seeds(flow_pipe):
    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (8, 9)]

    first = flow_pipe("cat", num_images_per_prompt=2, generator=generators(), output_type="pt")
    again = flow_pipe("cat", num_images_per_prompt=2, generator=generators(), output_type="pt")
    redrawn = flow_pipe("cat", num_images_per_prompt=2, seeds=first.statistics.seeds, output_type="pt")
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, redrawn.images)
    state = torch.random.get_rng_state()
    fresh = [flow_pipe("cat").statistics.seeds for _ in range(2)]
    assert fresh[0] != fresh[1]
    assert torch.equal(state, torch.random.get_rng_state())


def test_guidance_changes_the_picture_and_is_the_models_by_default(flow_pipe):
    guided = pixels(flow_pipe, "dog", seeds=1)
    assert torch.equal(guided, pixels(flow_pipe, "dog", seeds=1, guidance_scale=0.5))
    for other in (
        {"guidance_scale": 0.0},
        {"annealed_guidance": False},
        {"guide_what": "scale"},
        {"attention_temperature": 0.5},
        {"denoise_strength": 0.0},
    ):
        assert not torch.allclose(guided, pixels(flow_pipe, "dog", seeds=1, **other), atol=1e-6), other


def test_outputs(flow_pipe):
    image = flow_pipe("dog", seeds=1).images[0]
    array, statistics = flow_pipe("dog", seeds=1, output_type="np", return_dict=False)
    tensor = pixels(flow_pipe, "dog", seeds=1)
    latents = flow_pipe("dog", seeds=1, output_type="latent").images
    assert image.size == (8, 8)
    assert array.shape == (1, 8, 8, 3)
    assert torch.allclose(torch.from_numpy(array)[0].movedim(-1, 0), tensor[0].cpu())
    assert np.array_equal(np.array(image), (array[0] * 255).round().astype("uint8"))
    assert latents.shape == (1, 16, 12)
    decoded = flow_pipe.decode_latents(latents, torch.tensor([1], device=latents.device), 1.0)
    assert torch.allclose((decoded / 2 + 0.5).clamp(0, 1), tensor)
    assert statistics.solver == "FrontierFlowSolver"
    assert statistics.label == "exact"
    assert statistics.forward_passes == sum(block.passes for block in statistics.blocks) < 30
    assert set(statistics.seconds) == {"solve", "pixels"}


def test_solvers_are_swapped(flow_pipe):
    sequential = SequentialFlowSolver()
    flow_pipe.scheduler = sequential
    reference = flow_pipe("red fox", seeds=3, output_type="latent")
    assert reference.statistics.forward_passes == 30
    flow_pipe.scheduler = JacobiFlowSolver()
    assert torch.allclose(flow_pipe("red fox", seeds=3, output_type="latent").images, reference.images, atol=1e-5)
    assert flow_pipe.config.scheduler == ("sjd_pipelines", "JacobiFlowSolver")


def test_a_setting_of_the_solver_is_told_its_place(flow_pipe):
    solver = type(flow_pipe.scheduler).__name__
    with pytest.raises(
        TypeError, match=rf"^a call has no 'tolerance'; it is a setting of .*{solver}\(tolerance=\.\.\.\)"
    ):
        flow_pipe("car", tolerance=0.1, scheduler=flow_pipe.scheduler)


def test_unconditional_flow():
    pipe = tiny_pipeline(num_classes=0)
    plain = pixels(pipe, seeds=[1, 2], num_images_per_prompt=2)
    assert plain.shape == (2, 3, 8, 8)
    assert not torch.allclose(plain, pixels(pipe, seeds=[1, 2], num_images_per_prompt=2, attention_temperature=0.3))
    with pytest.raises(ValueError, match="This model is unconditional: it draws without a prompt"):
        pipe("dog")


def test_callbacks_see_each_pass_and_can_stop(flow_pipe):
    seen = []

    def watch(pipe, index, solved, tensors):
        seen.append((index, solved, tensors["sample"].clone(), tensors["solved"].tolist()))
        tensors["sample"].zero_()

    output = flow_pipe(["dog", "cat"], seeds=[1, 2], output_type="latent", callback_on_step_end=watch)
    assert [index for index, *_ in seen] == list(range(output.statistics.forward_passes))
    counts = [solved for _, solved, *_ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == 2 * 2 * 16
    assert all(sum(rows) == solved for _, solved, _, rows in seen)
    assert torch.allclose(seen[-1][2], output.images)
    assert torch.equal(output.images, flow_pipe(["dog", "cat"], seeds=[1, 2], output_type="latent").images)

    def stop(pipe, index, solved, tensors):
        assert tensors == {}
        pipe.interrupt = index == 2

    stopped = flow_pipe("dog", seeds=1, callback_on_step_end=stop, callback_on_step_end_tensor_inputs=[])
    assert stopped.statistics.interrupted
    assert stopped.statistics.forward_passes == 3
    assert not flow_pipe("dog", seeds=1).statistics.interrupted


def test_progress_counts_solved_positions(flow_pipe, capsys):
    flow_pipe.set_progress_bar_config(disable=False)
    try:
        flow_pipe(["dog", "cat"], seeds=[1, 2])
    finally:
        flow_pipe.set_progress_bar_config(disable=True)
    assert "64/64" in capsys.readouterr().err


def test_schedulers_of_the_other_kind_are_refused(flow_pipe, toy):
    flow_message = r"its blocks are solved: scheduler must be one of this package's flow solvers, got SJDScheduler\.$"
    with pytest.raises(ValueError, match=flow_message):
        TarFlowPipeline(flow_pipe.transformer, SJDScheduler())
    with pytest.raises(ValueError, match=flow_message):
        flow_pipe("dog", scheduler=SJDScheduler())
    with pytest.raises(ValueError, match=flow_message):
        flow_pipe("dog", scheduler="sjd")
    with pytest.raises(ValueError, match=flow_message):
        flow_pipe.scheduler = SJDScheduler()
    message = r"decodes tokens: scheduler must be one of this package's decoding schedulers, got FrontierFlowSolver\.$"
    with pytest.raises(ValueError, match=message):
        type(toy)(toy.model, toy.processor, FrontierFlowSolver())
    with pytest.raises(ValueError, match=message):
        toy("a red dog", scheduler=FrontierFlowSolver())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "dig"}, r"by index in \[0, 3\) or by name \(cat, dog, red fox\); got 'dig'\. Did you mean dog\?$"),
        ({"prompt": "airplane"}, r"by name \(cat, dog, red fox\); got 'airplane'\.$"),
        ({"prompt": 3}, "got 3"),
        ({"prompt": -1}, "got -1"),
        ({"prompt": 1.0}, "got 1.0"),
        ({"prompt": True}, "got True"),
        ({"prompt": []}, "prompt is an empty list; pass at least one class"),
        ({"height": 16}, "This model draws 8x8 pixels only, got 16x8"),
        ({"guidance_scale": -1}, "guidance_scale must be a number from 0 to 1000"),
        ({"guide_what": "ab"}, "guide_what must be one of both, scale, shift"),
        ({"guidance_scale": 10**400}, "guidance_scale must be a number from 0 to 1000, got an integer of 401 digits"),
        ({"attention_temperature": 0.0}, "attention_temperature must be a number from 1e-06 to 1000"),
        ({"attention_temperature": math.inf}, "attention_temperature must be a number from 1e-06 to 1000"),
        ({"denoise_strength": -0.5}, "denoise_strength must be a number from 0 to 1000"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt must be an integer from 1 to 65536"),
        ({"output_type": "jpg"}, "output_type must be one of pil, np, pt, latent; got 'jpg'"),
        ({"seeds": [1, 2]}, "seeds: got 2 for 1 pictures"),
        ({"seeds": -1}, "seeds must be integers from 0"),
        ({"seeds": 1, "generator": torch.Generator()}, "generator and seeds exclude each other"),
        ({"generator": [torch.Generator()] * 2}, "generator: got 2 for 1 pictures"),
        (
            {"callback_on_step_end_tensor_inputs": ["canvas"]},
            "must be a list of some of sample, solved; got .'canvas'",
        ),
        ({"callback_on_step_end_tensor_inputs": 3}, "must be a list of some of sample, solved; got 3"),
        ({"callback_on_step_end": 3}, "callback_on_step_end must be a function, got 3"),
        ({"annealed_guidance": "no"}, "annealed_guidance must be True or False, got 'no'"),
        ({"guide_what": 10**400}, "guide_what must be one of both, scale, shift; got an integer of 401 digits"),
    ],
)
def test_bad_input_is_refused(flow_pipe, options, message):
    with pytest.raises(ValueError, match=message):
        flow_pipe(**{"prompt": "dog"} | options)


def test_settings_that_do_not_fit_are_refused(flow_pipe):
    flow_pipe.scheduler = GaussSeidelJacobiFlowSolver()
    with pytest.raises(ValueError, match="strategy names block 6; this flow has blocks 0 to 1"):
        flow_pipe("dog")
    with pytest.raises(ValueError, match=r"sampling: .'temperature'. not in guidance_scale"):
        TarFlowPipeline(flow_pipe.transformer, flow_pipe.scheduler, sampling={"temperature": 1})


@pytest.mark.parametrize("solver", [SequentialFlowSolver(), FrontierFlowSolver()])
def test_overflow_is_an_error_and_no_picture(solver):
    pipe = tiny_pipeline(gain=100.0, scheduler=solver)
    with pytest.raises(FlowOverflowError, match="The flow overflows"):
        pipe("dog", seeds=1)


def test_calibration(flow_pipe):
    found = flow_pipe.calibrate(["dog", "cat"], mode="fast", objective="passes", batch_size=2, references=2)
    assert found.planned.error <= 1e-2
    reference = pixels(flow_pipe, ["dog", "cat"], seeds=[900, 901])
    flow_pipe.scheduler = found.solver
    output = flow_pipe(["dog", "cat"], seeds=[900, 901], output_type="pt")
    assert (output.images - reference).abs().max() < 0.05
    assert output.statistics.error == found.planned.error
    assert output.statistics.label == "approximate"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "exactly"}, "mode must be one of exact, safe, fast; got 'exactly'"),
        ({"mode": ["safe"]}, "mode must be one of exact, safe, fast; got .'safe'"),
        ({"objective": "time"}, "objective must be one of passes, seconds; got 'time'"),
        ({"fitted": FrontierFlowSolver()}, r"fitted must be what fit\(\) returned, or None; got FrontierFlowSolver"),
        ({"on_block": 3}, "on_block must be a function, got 3"),
        ({"batch_size": 0}, "batch_size must be an integer from 1"),
        ({"prompt": "dig"}, "Did you mean dog"),
    ],
)
def test_bad_goals_are_refused_before_anything_is_solved(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_pipeline(gain=100.0).calibrate(**options)  # which overflows in its first block


def test_memory_of_keys_and_values_is_known(flow_pipe):
    """Of all blocks that are worked on side by side, which is what all caches there are take."""

    def taken():
        caches = [one for one in gc.get_objects() if type(one) is FlowCache]
        return sum(layer.nbytes for cache in caches for layer in cache.layers)

    guidance = flow_pipe.prepare_guidance(0.5, None, None, None)
    gc.collect()
    before = taken()
    found = []
    for solver, blocks in ((FrontierFlowSolver(), 1), (OverlappingFlowSolver(overlap=100), 2)):
        flow_pipe(
            ["dog", "cat"], seeds=[1, 2], scheduler=solver, callback_on_step_end=lambda *_: found.append(taken())
        )
        assert max(found) - before == 2 * flow_pipe.picture_bytes(guidance, solver)
        assert solver.most_at_once(2) == blocks
    assert OverlappingFlowSolver(overlap=0).most_at_once(2) == 1


def test_a_fitted_solver(flow_pipe):
    reference = pixels(flow_pipe, ["dog", "cat"], seeds=[900, 901])
    flow_pipe.scheduler = flow_pipe.fit(guidance_scale=0.5)
    output = flow_pipe(["dog", "cat"], seeds=[900, 901], output_type="pt")
    assert (output.images - reference).abs().max() < 1e-4
    statistics = output.statistics
    assert (statistics.label, statistics.error) == ("exact", None)
    assert statistics.forward_passes < statistics.block_passes
    with pytest.raises(ValueError, match="guidance_scale must be"):
        flow_pipe.fit(guidance_scale=-1)


def test_numbers_and_sequences_of_any_kind(flow_pipe):
    def latents(prompts, number, generator):
        options = {"guidance_scale": number(0.5), "attention_temperature": number(2.0), "output_type": "latent"}
        return flow_pipe(prompts, generator=generator, **options).images

    plain = latents(["dog", "cat"], float, generators(1, 2))
    assert torch.equal(latents(("dog", np.int64(0)), np.float64, tuple(generators(1, 2))), plain)
    assert torch.equal(latents(["dog", "cat"], torch.tensor, generators(1, 2)), plain)
