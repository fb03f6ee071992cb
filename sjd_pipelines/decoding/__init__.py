"""The ground that schedulers and pipelines both stand on."""

from .cache import CanvasCache
from .layout import FREE, ImageTokenLayout
from .noise import PositionNoise, Purpose, SharedNoise
from .ring import PositionRing
from .sampling import force, guide, inverse_transform, most_likely, probabilities, race
from .state import DecodingState, DecodingStatistics, Query

__all__ = [
    "FREE",
    "CanvasCache",
    "DecodingState",
    "DecodingStatistics",
    "ImageTokenLayout",
    "PositionNoise",
    "PositionRing",
    "Purpose",
    "Query",
    "SharedNoise",
    "force",
    "guide",
    "inverse_transform",
    "most_likely",
    "probabilities",
    "race",
]
