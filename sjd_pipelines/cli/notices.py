"""What the library logs while a command runs, as lines of the command."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _OnceHandler(logging.Handler):
    """Prints each message once: a command may draw the same prompt in many calls."""

    def __init__(self):
        super().__init__()
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._printed:
            self._printed.add(message)
            print(f"sjd: {message}", file=sys.stderr, flush=True)


@contextmanager
def logged_once() -> Iterator[None]:
    """Warnings of this package on standard error, each once; its logger is put back."""
    logger = logging.getLogger(__package__.partition(".")[0])
    handler, propagate = _OnceHandler(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
