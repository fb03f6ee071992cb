"""What the library logs while a command runs, as lines of the command."""

import sys
from contextlib import AbstractContextManager

from ..jobs.notices import telling

MOST_NOTICES = 20  # of one command: a table may have a million prompts


class Notices:
    """Prints messages on standard error, each once, since a command may draw the same prompt in many calls."""

    def __init__(self) -> None:
        self._printed: set[str] = set()

    def __call__(self, message: str) -> None:
        if message in self._printed or len(self._printed) > MOST_NOTICES:
            return
        self._printed.add(message)
        if len(self._printed) > MOST_NOTICES:
            message = "more was logged, which is not shown"
        print(f"sjd: {message}", file=sys.stderr, flush=True)


def logged_once() -> AbstractContextManager[None]:
    """A block whose warnings of this package are printed."""
    return telling(Notices())
