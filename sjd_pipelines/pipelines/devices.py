"""Devices as people name them: one check, made before anything is loaded or moved."""

import warnings
from typing import Any

import torch

from ..ranges import shown


def read_device(device: Any) -> torch.device:
    """A device of this machine that numbers can be on; its name will do, or the index of an accelerator.

    Raises:
        ValueError: it is none.
    """
    refusal = f"device must be one of this machine's, {', '.join(known_devices())}; got {shown(device)}."
    if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
        raise ValueError(refusal)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are none any more
            place = torch.device(device)
            torch.empty(0, device=place)
    # Of which types an error is no backend says.
    except (RuntimeError, AssertionError, ImportError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(refusal) from error
    if place.type == "meta":
        raise ValueError(refusal)
    return place


def known_devices() -> list[str]:
    """Names of the devices that this machine has."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    count = torch.accelerator.device_count()
    return ["cpu", accelerator.type, *(f"{accelerator.type}:{index}" for index in range(1, count))]
