"""The clock that candidates and benchmarks are timed by."""

import time
from collections.abc import Callable

import torch


def seconds_of(attempt: Callable[[], object], device: torch.device) -> float:
    """How long a computation takes.

    On one CPU thread it is the time of the process, which whatever else runs on the machine hardly disturbs; several
    threads, and other devices, are timed by the clock on the wall.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _wait_for(device)
    begin = clock()
    attempt()
    _wait_for(device)
    return clock() - begin


def _wait_for(device: torch.device) -> None:
    """GPUs work while Python goes on; a clock must not."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
