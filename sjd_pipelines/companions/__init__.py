"""Networks beside the target that help its scheduler to guess: each in one file, with what it remembers of a run."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..decoding.target import Companion, HostTarget
from .drafter import EagleDrafter, RunningDrafter
from .reviser import DraftReviser, RunningReviser


@dataclass(frozen=True)
class CompanionKind:
    """A kind of companion.

    Attributes:
        network: its class, a diffusers model; saved and loaded with the pipeline.
        running: a network at work on the batch of a target.
        calls: the methods of the network that are called on the way, for whoever times them.
    """

    network: type[torch.nn.Module]
    running: Callable[[torch.nn.Module, HostTarget], Companion]
    calls: tuple[str, ...]


# By the name of the pipeline's component, and of what a scheduler asks for. A line here makes it known to all.
COMPANIONS: dict[str, CompanionKind] = {
    "drafter": CompanionKind(EagleDrafter, RunningDrafter, ("__call__",)),
    "reviser": CompanionKind(DraftReviser, RunningReviser, ("read", "respond", "change")),
}

__all__ = ["COMPANIONS", "CompanionKind", "DraftReviser", "EagleDrafter", "RunningDrafter", "RunningReviser"]
