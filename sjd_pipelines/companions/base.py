"""What a companion declares of itself."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin

from ..decoding.target import Companion, HostTarget

Laws = Callable[[int, int], torch.Tensor]  # B, Q -> `[B, Q, V]` float32, rows sum to one


class CompanionNetwork(ModelMixin, ConfigMixin):
    """A network beside the target that helps its scheduler to guess; saved and loaded with the pipeline.

    Attributes:
        calls: its methods that are called while it is at work, for whoever times them.
    """

    calls: ClassVar[tuple[str, ...]] = ("__call__",)

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # What model_index.json will name: the package, because files move.
        package = __name__.partition(".")[0]
        if cls.__module__.startswith(f"{package}."):
            cls.__module__ = package

    @abstractmethod
    def running(self, target: HostTarget) -> Companion:
        """The network at work on the batch of a target."""

    @classmethod
    @abstractmethod
    def small(cls, hidden_size: int, vocabulary_size: int) -> "CompanionNetwork":
        """An untrained one for a small target with hidden states of that size and so many image tokens."""

    @staticmethod
    @abstractmethod
    def stand_in(laws: Laws) -> Companion:
        """What answers as one at work does, at no cost and with the laws it is given."""
