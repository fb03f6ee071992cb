"""What the library logs while it draws, such as words that a model does not know, as messages for somebody."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Handler(logging.Handler):
    def __init__(self, tell: Callable[[str], object]):
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


@contextmanager
def telling(tell: Callable[[str], object]) -> Iterator[None]:
    """Give the warnings of this package to a function instead of the log; its logger is put back."""
    logger = logging.getLogger(__package__.partition(".")[0])
    handler, propagate = _Handler(tell), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
