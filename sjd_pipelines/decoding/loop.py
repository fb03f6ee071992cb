"""The decode loop: plan, run, step, until every image is complete. There is no other."""

import time
from collections.abc import Callable, Mapping

import torch

from .noise import PositionNoise
from .runner import Run, executing
from .state import DecodingState
from .target import Companion, Scheduler, Target

COARSE = 1e-4  # seconds: clocks that tick more slowly are not used


def decode(
    target: Target,
    scheduler: Scheduler,
    noise: PositionNoise,
    companions: Mapping[str, Companion] | None = None,
    on_pass: Callable[[DecodingState], bool | None] | None = None,
) -> DecodingState:
    """Decode one batch of images.

    Args:
        target: the model, its prompts behind it.
        scheduler: says which tokens to draft, verify and commit.
        noise: the random numbers of each image.
        companions: who looks on at every pass; those that `scheduler.companions` names, by name, and others.
        on_pass: called after each pass; the run ends where it returns True.

    Returns:
        The state after the last pass.

    Raises:
        ValueError: the scheduler can't decode this target, or noise or target are made for something else.
        NotFiniteError: the model gave numbers that are not finite.
    """
    companions = companions or {}
    scheduler.check_target(target.layout, companions)
    _check_sizes(target, scheduler, noise)
    state = scheduler.start(target, companions)
    now = pass_clock(target.device)
    with executing(Run(target, scheduler, state, noise, companions)) as execute:
        while not state.finished:
            begin = now()
            typical = execute()
            state.synchronize()
            state.seconds = now() - begin if typical else None
            if on_pass is not None and on_pass(state):
                break
    return state


def _check_sizes(target: Target, scheduler: Scheduler, noise: PositionNoise) -> None:
    """Raise `ValueError` unless there is noise for every image, and room for all that the scheduler asks."""
    if len(noise.seeds) != target.batch_size:
        raise ValueError(f"noise is made of {len(noise.seeds)} seeds, for {target.batch_size} images.")
    margin, room = scheduler.margin(target.layout), target.length - target.layout.num_tokens
    if room < margin:
        raise ValueError(
            f"{type(scheduler).__name__} needs a margin of {margin}; this target was prepared with {room}."
        )


def pass_clock(device: torch.device) -> Callable[[], float]:
    """The clock to time passes on a device with: on a CPU without the time that other processes take.

    This thread has a share in every operation of a pass, so that its own time is that of the pass.
    """
    fine = time.get_clock_info("thread_time").resolution < COARSE
    return time.thread_time if device.type == "cpu" and fine else time.perf_counter
