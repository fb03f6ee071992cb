"""Runs: what one call of a pipeline has of its own, so that calls in other threads do not meet it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


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

    @contextmanager
    def calling_back(self) -> Iterator[None]:
        """A block in which this run's callback is at work: it is the run that the pipeline's attributes speak of."""
        token = _calling_back.set(self)
        try:
            yield
        finally:
            _calling_back.reset(token)


_active: list[Run] = []  # of all pipelines; appending and removing are atomic
_calling_back: ContextVar[Run | None] = ContextVar("calling_back", default=None)


@contextmanager
def running(pipe: Any, guidance_scale: float) -> Iterator[Run]:
    """A block in which a call of `pipe` is at work."""
    run = Run(pipe, guidance_scale)
    _active.append(run)
    try:
        yield run
    finally:
        _active.remove(run)


def runs_of(pipe: Any) -> list[Run]:
    """The runs that are meant where a pipeline is spoken to: that whose callback is at work, else all of them."""
    run = _calling_back.get()
    if run is not None and run.pipe is pipe:
        return [run]
    return [run for run in tuple(_active) if run.pipe is pipe]
