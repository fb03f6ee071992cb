"""What a scheduler may ask of a draft model: the laws after tokens that the target has not seen yet."""

from dataclasses import dataclass
from typing import Protocol

import torch

from .query import Query
from .target import Companion


@dataclass
class DraftQuery(Query):
    """A query to a draft model.

    Attributes:
        parents: `[B, Q]` int64: the canvas slot of the token before each one; None: the slot before its own.
        wanted: `[B, M]` int64: the tokens of this query whose laws are wanted; None: all of them.
    """

    parents: torch.Tensor | None = None
    wanted: torch.Tensor | None = None

    def first(self, count: int) -> "DraftQuery":
        """A query about the first `count` tokens, which live at their positions."""
        return DraftQuery(
            self.token_ids[:, :count],
            self.positions[:, :count],
            self.predicts[:, :count],
            self.visible[:, :count],
            moves=self.moves,
        )


class Drafter(Companion, Protocol):
    """A draft model at work on one batch. It reads its past from canvas slots, as the target does."""

    def laws(self, query: DraftQuery) -> torch.Tensor:
        """The drafter's law of what each wanted token predicts, guided and warped as the target's.

        A token may be asked about once the token before it has gone through the target or the drafter.

        Args:
            query: tokens, their slots and what they may attend to.

        Returns:
            `[B, M, V]` float32, rows sum to one.
        """

    def review(self, query: DraftQuery) -> None:
        """Take note of how far off it is at tokens that the target has just seen; its next laws there make up for it.

        Args:
            query: the tokens as the target saw them, accepted or not.
        """
