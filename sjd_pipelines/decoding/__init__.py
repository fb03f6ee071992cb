"""The ground that schedulers and pipelines both stand on."""

from .cache import CanvasCache
from .layout import FREE, ImageTokenLayout
from .noise import PositionNoise, Purpose
from .sampling import force, guide, probabilities, race
from .state import DecodingState, DecodingStatistics, LawRing, Query

__all__ = [
    "FREE",
    "CanvasCache",
    "DecodingState",
    "DecodingStatistics",
    "ImageTokenLayout",
    "LawRing",
    "PositionNoise",
    "Purpose",
    "Query",
    "force",
    "guide",
    "probabilities",
    "race",
]
