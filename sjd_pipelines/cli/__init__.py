"""`sjd`: the command line, which is in `program`."""

import contextlib
import os
import sys
from collections.abc import Sequence

INTERRUPTED, PIPE_CLOSED = 130, 141  # as shells count a process that a signal has ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program name; None takes those of the process.

    Returns:
        Exit status: 0 done, 1 a verdict of `sjd verify` failed, 2 bad input, 130 interrupted, 141 nobody reads what
        is printed.
    """
    try:
        from .program import run  # in here: whoever stops the command may do so while it is imported

        return run(argv)
    except KeyboardInterrupt:
        print("sjd: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # what is left in the buffer goes nowhere, without a word
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
