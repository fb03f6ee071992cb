"""The companions that any family may have: its constructor takes those there are."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Optional

from ..companions import COMPANIONS


def with_companions(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor of a family, which then takes the companions as well, after its own arguments: None for none.

    diffusers reads a pipeline's components from the signature of its constructor.
    """
    # diffusers before 0.36 does not read `X | None` from a signature.
    types = {name: Optional[network] for name, network in COMPANIONS.items()}  # noqa: UP045
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [inspect.Parameter(name, kind, default=None, annotation=annotation) for name, annotation in types.items()]
    own = inspect.signature(init)
    signature = own.replace(parameters=[*own.parameters.values(), *added])

    @wraps(init)
    def constructor(*args: Any, **kwargs: Any) -> None:
        given = signature.bind(*args, **kwargs)
        companions = {name: given.arguments.pop(name, None) for name in COMPANIONS}
        init(*given.args, **given.kwargs)
        args[0].register_modules(**companions)

    constructor.__signature__ = signature
    constructor.__annotations__ = init.__annotations__ | types
    return constructor
