"""Networks beside the target that help its scheduler to guess: each in one file, with what it remembers of a run."""

from ..exports import lazy
from .registry import EXPORTS

SOURCES = {".registry": ("COMPANIONS",), **EXPORTS}

__all__, __getattr__, __dir__ = lazy(__name__, SOURCES)
