"""Whether a run can fit into the memory of its device at all, asked before any work."""

import psutil
import torch


def check_room(needed: int, device: torch.device, pictures: int) -> None:
    """Raise `ValueError` for a run that no state of the device could hold, or on a device that holds nothing.

    Args:
        needed: bytes that it takes for certain.
        device: that it runs on; only of CPUs and CUDA devices is it known what they have.
        pictures: that it draws at once.
    """
    if device.type == "meta":
        raise ValueError("the pipeline is on device meta, which holds shapes and no numbers; load it again.")
    total = total_memory(device)
    if total is not None and needed > total:
        raise ValueError(
            f"{pictures} pictures at once need {_gibibytes(needed)} beside the weights, and {device} has "
            f"{_gibibytes(total)} in all; draw fewer or smaller ones at once."
        )


def total_memory(device: torch.device) -> int | None:
    """Bytes that a device has, used or not; None if that is not known."""
    if device.type == "cpu":
        return psutil.virtual_memory().total
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return None


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
