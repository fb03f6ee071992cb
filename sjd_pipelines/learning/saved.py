"""What a run has saved, read back; where it can't be, an error that names the file and says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..disk import read_text


@contextmanager
def as_saved(file: Path) -> Iterator[None]:
    """A block that reads a file of a run and takes apart what is in it.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it can't be read, or does not hold what a run saves.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} does not exist: no run has saved it.") from error
    except OSError as error:
        told = error.strerror is None and str(file) in str(error)
        raise OSError(str(error) if told else f"{file}: {error.strerror or error}.") from error
    except Exception as error:  # of which types it may be no library says
        reason = " ".join(f"{type(error).__name__} {error}".split())[:300]
        raise OSError(f"{file} is not as a run saves it ({reason}).") from error


def read_weights(file: Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Weights by name. Raises as `as_saved`."""
    with as_saved(file):
        return load_file(file, device=device)


def read_state(file: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """What a run needs to go on. Raises as `as_saved`."""
    with as_saved(file):
        return torch.load(file, map_location=device, weights_only=True)


def last_entry(log: Path) -> dict[str, Any]:
    """The last line of a log. Raises as `as_saved`."""
    with as_saved(log):
        return dict(json.loads(read_text(log).splitlines()[-1]))
