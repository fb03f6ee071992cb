"""Calls of one pipeline that are at work at once: neither stops, revives or changes the other."""

import contextlib
import contextvars
import threading

import pytest
import torch
from diffusers import DDIMScheduler

from sjd_pipelines import AutoregressiveScheduler, ParallelJacobiScheduler, PositionNoise, SeededJacobiScheduler
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.decoding import Sampling, decode

PROMPTS = ["a red dog", "two blue cat on a green house"]


def draw(pipe, seed=1, **options):
    return pipe(PROMPTS, generator=torch.Generator().manual_seed(seed), output_type="latent", **options)


def test_nothing_is_to_stop_before_the_first_call():
    pipe = toy_pipeline()
    assert pipe.interrupt is False
    assert pipe.guidance_scale is None
    pipe.interrupt = True  # there is no run that it could mean
    pipe.set_progress_bar_config(disable=True)
    assert not draw(pipe).statistics.interrupted


class InTurns:
    """Two calls in two threads that wait for each other after every pass, until one of them has ended."""

    def __init__(self, pipe):
        self.pipe, self.barrier, self.outputs, self.scales = pipe, threading.Barrier(2), {}, {}

    def run(self, first, second):
        calls = {"first": first, "second": second}
        threads = [threading.Thread(target=self._call, args=item) for item in calls.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.outputs

    def _call(self, name, options):
        on_pass = options.pop("on_pass", None)

        def watch(pipe, index, committed, tensors):
            self.scales.setdefault(name, set()).add(pipe.guidance_scale)
            if on_pass is not None:
                on_pass(pipe, index)
            with contextlib.suppress(threading.BrokenBarrierError):
                self.barrier.wait(timeout=60)

        try:
            self.outputs[name] = draw(self.pipe, callback_on_step_end=watch, **options)
        finally:
            self.barrier.abort()


def stop_at(index):
    def on_pass(pipe, at):
        if at == index:
            pipe.interrupt = True
            assert pipe.interrupt

    return on_pass


def test_a_callback_stops_its_own_run_alone(pipe):
    reference = draw(pipe)
    outputs = InTurns(pipe).run({"on_pass": stop_at(2)}, {})
    assert outputs["first"].statistics.interrupted
    assert max(outputs["first"].statistics.forward_passes) == 3
    assert not outputs["second"].statistics.interrupted
    assert torch.equal(outputs["second"].tokens, reference.tokens)
    assert pipe.interrupt is False


def test_a_new_call_revives_no_other(pipe):
    def stop_and_draw(pipe, index):
        if index == 1:
            pipe.interrupt = True
            draw(pipe, seed=9)  # a call inside a callback is a run of its own
            assert pipe.interrupt

    output = draw(pipe, callback_on_step_end=lambda pipe, index, *_: stop_and_draw(pipe, index))
    assert output.statistics.interrupted
    assert max(output.statistics.forward_passes) == 2


def test_from_outside_all_runs_are_stopped(pipe):
    started = threading.Event()

    def on_pass(_, index):
        if index == 1:
            started.set()
            assert stopped.wait(timeout=60)

    def from_outside():
        assert started.wait(timeout=60)
        pipe.interrupt = True
        assert pipe.interrupt
        stopped.set()

    stopped = threading.Event()
    outside = threading.Thread(target=from_outside)
    outside.start()
    outputs = InTurns(pipe).run({"on_pass": on_pass}, {"on_pass": on_pass})
    outside.join()
    passes = [max(output.statistics.forward_passes) for output in outputs.values()]
    assert all(output.statistics.interrupted for output in outputs.values())
    assert max(passes) == 2  # the other one may have been told after its first pass


def test_guidance_is_that_of_the_run(pipe):
    turns = InTurns(pipe)
    alone = {scale: draw(pipe, guidance_scale=scale).tokens for scale in (1.0, 4.0)}
    outputs = turns.run({"guidance_scale": 1.0}, {"guidance_scale": 4.0})
    assert turns.scales == {"first": {1.0}, "second": {4.0}}
    assert torch.equal(outputs["first"].tokens, alone[1.0])
    assert torch.equal(outputs["second"].tokens, alone[4.0])


def test_what_a_callback_does_to_its_tensors_changes_nothing(pipe):
    reference, frames = draw(pipe), []

    def spoil(pipe, index, committed, tensors):
        frames.append({name: tensor.clone() for name, tensor in tensors.items()})
        for tensor in tensors.values():
            tensor.fill_(7)

    output = draw(pipe, callback_on_step_end=spoil)
    assert torch.equal(output.tokens, reference.tokens)
    assert torch.equal(output.statistics.acceptance_map, reference.statistics.acceptance_map)
    kept = []
    draw(pipe, callback_on_step_end=lambda pipe, index, committed, tensors: kept.append(tensors))
    assert len(kept) == 16
    for one, frame in zip(kept, frames):  # collected as they are, they still are what they were
        assert all(torch.equal(one[name], frame[name]) for name in frame)
    assert len({tuple(frame["canvas"].flatten().tolist()) for frame in kept}) == 16


def test_a_call_may_have_its_own_scheduler(pipe):
    own = pipe.scheduler
    output = draw(pipe, scheduler=SeededJacobiScheduler(window=4))
    assert output.statistics.scheduler == "SeededJacobiScheduler"
    assert pipe.scheduler is own
    assert torch.equal(output.tokens, draw(pipe, scheduler=AutoregressiveScheduler()).tokens)
    with pytest.raises(ValueError, match=r"one of this package's decoding schedulers, got DDIMScheduler\."):
        draw(pipe, scheduler=DDIMScheduler())


def test_the_innermost_run_around_is_meant_and_none_that_has_ended(pipe):
    other, seen = toy_pipeline(), {}
    other.set_progress_bar_config(disable=True)

    def inner(pipe_, index, *_):
        pipe.interrupt = True  # of the call around this one

    def outer(pipe_, index, *_):
        if index == 1:
            seen["context"] = contextvars.copy_context()
            seen["inner"] = draw(other, guidance_scale=1.0, callback_on_step_end=inner).statistics.interrupted
            seen["own"] = pipe_.guidance_scale

    output = draw(pipe, guidance_scale=3.0, callback_on_step_end=outer)
    assert output.statistics.interrupted
    assert max(output.statistics.forward_passes) == 2
    assert (seen["inner"], seen["own"]) == (False, 3.0)
    assert seen["context"].run(lambda: pipe.guidance_scale) is None
    assert not draw(pipe).statistics.interrupted


def test_an_exception_in_a_callback_leaves_no_run_behind(pipe):
    def fail(*_):
        raise KeyError("callback")

    with pytest.raises(KeyError, match="callback"):
        draw(pipe, callback_on_step_end=fail)
    assert pipe.guidance_scale is None
    assert pipe.interrupt is False


def test_a_target_without_room_or_noise_for_every_image_is_refused(pipe):
    layout = pipe.image_layout(None, None)
    encoded = pipe.encode_prompt(PROMPTS, None, True, 1)
    target = pipe.prepare_target(encoded, layout, Sampling(2.0), margin=4)
    with pytest.raises(
        ValueError, match=r"ParallelJacobiScheduler needs a margin of 17; this target was prepared with 4"
    ):
        decode(target, ParallelJacobiScheduler(window=2), PositionNoise([0, 1]))
    with pytest.raises(ValueError, match=r"noise is made of 3 seeds, for 2 images\."):
        decode(target, AutoregressiveScheduler(), PositionNoise([0, 1, 2]))
