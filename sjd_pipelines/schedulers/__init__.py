"""Decoding schedulers: which tokens to draft, verify and commit in each forward pass."""

from ..exports import lazy
from .registry import EXPORTS

SOURCES = {".registry": ("SCHEDULERS",), **EXPORTS}

__all__, __getattr__, __dir__ = lazy(__name__, SOURCES)
