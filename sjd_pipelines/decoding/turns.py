"""Who may work while passes are recorded."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Turns:
    """Passes of several threads go on side by side; a recording waits for them to end, and they wait for it.

    To record a pass torch changes what all threads of the process call.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._passes = self._recordings = 0  # at work; at work or waiting

    @contextmanager
    def a_pass(self) -> Iterator[None]:
        """A block beside which nothing is recorded."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recordings)
            self._passes += 1
        try:
            yield
        finally:
            with self._changed:
                self._passes -= 1
                self._changed.notify_all()

    @contextmanager
    def a_recording(self) -> Iterator[None]:
        """A block beside which there is neither a pass nor another recording."""
        with self._changed:
            self._recordings += 1
            try:
                self._changed.wait_for(lambda: not self._passes)
                yield  # the lock is held: nobody begins
            finally:
                self._recordings -= 1
                self._changed.notify_all()
