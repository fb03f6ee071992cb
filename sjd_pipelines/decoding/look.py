"""Looking at numbers: what waits for an accelerator costs nothing on a CPU. Nobody else asks for devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_forced: ContextVar[bool | None] = ContextVar("look_is_free", default=None)
_recording: ContextVar[bool] = ContextVar("recording", default=False)


def look_is_free(values: torch.Tensor) -> bool:
    """Whether the host can see the numbers of a tensor without a wait.

    Where it can, an algorithm may leave out what the numbers show to be needless, and hand them to NumPy. What it
    computes must be the same either way.
    """
    forced = _forced.get()
    return values.device.type == "cpu" if forced is None else forced


def recorded() -> bool:
    """Whether the operations of this thread are being written down, to be compiled."""
    return _recording.get()


@contextmanager
def recording() -> Iterator[None]:
    """A block of this thread whose operations are being written down. Nobody can look at what will be computed."""
    token = _recording.set(True)
    try:
        with looks(free=False):
            yield
    finally:
        _recording.reset(token)


@contextmanager
def looks(free: bool) -> Iterator[None]:
    """A block of this thread in which looks at any tensor are held to be free or not, for tests of both ways.

    Without free looks a CPU takes the way of an accelerator; with them there must be no accelerator.
    """
    token = _forced.set(free)
    try:
        yield
    finally:
        _forced.reset(token)
