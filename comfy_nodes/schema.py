"""What newer versions of ComfyUI can be told of a node, and older ones cannot."""

import inspect
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io


def schema(**declared: Any) -> io.Schema:
    """The schema of a node; what this ComfyUI's schemas lack, as words to search by, is left out."""
    return io.Schema(**_known_to(io.Schema, declared))


def advanced(make: Callable[..., io.Input], name: str, **declared: Any) -> io.Input:
    """An input that is rarely used: out of the way where this ComfyUI can put it there."""
    return make(name, **_known_to(make, declared | {"advanced": True}))


def _known_to(make: Callable[..., Any], declared: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(make).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return declared
    return {name: value for name, value in declared.items() if name in parameters}
