"""What exact schedulers are held to and speed-ups are measured against: decoding without guesses."""

from ..decoding.layout import ImageTokenLayout
from .autoregressive import AutoregressiveScheduler
from .base import DecodingScheduler
from .parallel_groups import ParallelGroupsScheduler


def sequential_scheduler(layout: ImageTokenLayout) -> DecodingScheduler:
    """The scheduler that decodes a target as it was trained to be: token after token, or group after group."""
    return AutoregressiveScheduler() if layout.parallel == 1 else ParallelGroupsScheduler(window=0)
