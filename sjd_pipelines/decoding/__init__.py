"""The ground that schedulers and pipelines both stand on."""

from .cache import CanvasCache, cache_keyword
from .layout import FREE, ImageTokenLayout
from .loop import decode
from .memory import Memory
from .noise import PositionNoise, Purpose, SharedNoise
from .parallel_sequence import ParallelSequence
from .query import Query
from .ring import PositionRing
from .sampling import Sampling, force, guide, guide_rows, inverse_transform, most_likely, probabilities, race
from .state import DecodingState, NotFiniteError
from .statistics import DecodingStatistics
from .target import Companion, Target, TargetPass

__all__ = [
    "FREE",
    "CanvasCache",
    "Companion",
    "DecodingState",
    "DecodingStatistics",
    "ImageTokenLayout",
    "Memory",
    "NotFiniteError",
    "ParallelSequence",
    "PositionNoise",
    "PositionRing",
    "Purpose",
    "Query",
    "Sampling",
    "SharedNoise",
    "Target",
    "TargetPass",
    "cache_keyword",
    "decode",
    "force",
    "guide",
    "guide_rows",
    "inverse_transform",
    "most_likely",
    "probabilities",
    "race",
]
