"""Why numbers of a run are not finite, looked for once it has failed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ..decoding import NotFiniteError


@contextmanager
def explained(components: Mapping[str, Any]) -> Iterator[None]:
    """A block whose `NotFiniteError` says where it comes from: which weight is damaged, or that a format overflows."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{error} {_cause(components)}") from error


def _cause(components: Mapping[str, Any]) -> str:
    for name, component in components.items():
        if isinstance(component, torch.nn.Module):
            for weight, parameter in component.named_parameters():
                if not parameter.isfinite().all():
                    return f"{name}.{weight} is not finite: the file is damaged, or its dtype is too small for it."
    return "All weights are finite, so a sum has overflowed: load the model with dtype=torch.bfloat16 or float32."
