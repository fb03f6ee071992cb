"""Runs: what one call of a pipeline has of its own, so that calls in other threads do not meet it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(eq=False)
class Run:
    """One call of a pipeline at work.

    Attributes:
        pipe: the pipeline.
        guidance_scale: strength of guidance of this call.
        interrupted: stop after the current pass.
    """

    pipe: Any
    guidance_scale: float
    interrupted: bool = False


_active: list[Run] = []  # of all pipelines; appending and removing are atomic
_around: ContextVar[tuple[Run, ...]] = ContextVar("around", default=())  # the runs that this code is part of


@contextmanager
def running(pipe: Any, guidance_scale: float) -> Iterator[Run]:
    """A block in which a call of `pipe` is at work; what it calls, callbacks among them, is part of the run."""
    run = Run(pipe, guidance_scale)
    _active.append(run)
    token = _around.set((*_around.get(), run))
    try:
        with _own_defaults(pipe.device):
            yield run
    finally:
        _around.reset(token)
        _active.remove(run)


@contextmanager
def _own_defaults(device: torch.device) -> Iterator[None]:
    """A block of this thread that autocast and a default device around it do not change; both are this thread's."""
    with ExitStack() as stack:
        for kind in {device.type, "cpu"} - {"meta"}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def runs_of(pipe: Any) -> list[Run]:
    """The runs that are meant where a pipeline is spoken to: the innermost around the speaker, else all of them."""
    active = [run for run in tuple(_active) if run.pipe is pipe]
    around = [run for run in _around.get() if run in active]  # a context may outlive its run
    return around[-1:] or active
