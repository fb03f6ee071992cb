"""Networks beside the target that help its scheduler to guess: each in one file, with what it remembers of a run."""

from .drafter import (
    EagleDrafter,
)
from .registry import (
    COMPANIONS,
)
from .reviser import (
    DraftReviser,
)

__all__ = [
    "COMPANIONS",
    "DraftReviser",
    "EagleDrafter",
]
