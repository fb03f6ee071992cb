"""Losses as one compiled call where launches would take most of the time."""

from __future__ import annotations

from collections.abc import Callable

import torch

_BROKEN_OPTIONS = {"triton.mix_order_reduction"}


def compiled_for(device: torch.device, losses: Callable, dynamic: bool | None = None) -> Callable:
    """`losses`, compiled on a GPU, and as it is on a CPU.

    One reduction of torch 2.11's inductor computes a wrong size when lengths vary; it is left out.

    Args:
        device: where it is called.
        losses: what to compile.
        dynamic: of `torch.compile`; False where shapes are few.
    """
    if device.type == "cpu":
        return losses
    options = dict.fromkeys(_BROKEN_OPTIONS.intersection(torch._inductor.list_options()), False)
    return torch.compile(losses, options=options, dynamic=dynamic)
