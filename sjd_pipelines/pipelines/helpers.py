"""The networks beside its target that any family may have: an entry here, and all constructors and loaders know it."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Optional

from ..models import DraftReviser, EagleDrafter

# Components by name; beside the files of a transformers folder, each is a folder of its own.
HELPERS: dict[str, type[EagleDrafter | DraftReviser]] = {"drafter": EagleDrafter, "reviser": DraftReviser}


def with_helpers(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor of a family, which then takes the helpers as well, after its own arguments: None for none.

    diffusers reads a pipeline's components from the signature of its constructor.
    """
    # diffusers before 0.36 does not read `X | None` from a signature.
    types = {name: Optional[cls] for name, cls in HELPERS.items()}  # noqa: UP045
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [inspect.Parameter(name, kind, default=None, annotation=annotation) for name, annotation in types.items()]
    own = inspect.signature(init)
    signature = own.replace(parameters=[*own.parameters.values(), *added])

    @wraps(init)
    def constructor(*args: Any, **kwargs: Any) -> None:
        given = signature.bind(*args, **kwargs)
        helpers = {name: given.arguments.pop(name, None) for name in HELPERS}
        init(*given.args, **given.kwargs)
        args[0].register_modules(**helpers)

    constructor.__signature__ = signature
    constructor.__annotations__ = init.__annotations__ | types
    return constructor
