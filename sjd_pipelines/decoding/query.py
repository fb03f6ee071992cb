"""One forward pass as the model sees it: which tokens are fed, where they stand, and what each of them predicts."""

from dataclasses import dataclass

import torch


@dataclass
class Query:
    """What a scheduler asks of the target.

    All positions are canvas positions: when a token is made, see `ImageTokenLayout`.

    Attributes:
        token_ids: `[B, Q]` int64, the tokens that are fed.
        positions: `[B, Q]` int64, where they stand.
        predicts: `[B, Q]` int64, the position whose law each slot gives.
        visible: `[B, Q, S]` bool: the canvas slots 0 .. S - 1 each token may attend to. The prompt always is visible.
        slots: `[B, Q]` int64: the canvas slot that holds each token's keys and values; None: its position. A tree has
            several slots for one position.
        moves: pairs of canvas slots `[B, M]`, from and to, copied before this pass; None: nothing moves.
        prompt_end: slot 0 of every row feeds the last token of the prompt. Its token id, position and slot mean
            nothing then.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    predicts: torch.Tensor
    visible: torch.Tensor
    slots: torch.Tensor | None = None
    moves: tuple[torch.Tensor, torch.Tensor] | None = None
    prompt_end: bool = False

    @property
    def canvas_slots(self) -> torch.Tensor:
        """`[B, Q]` int64, see `slots`."""
        return self.positions if self.slots is None else self.slots

    @classmethod
    def teacher_forced(cls, tokens: torch.Tensor) -> "Query":
        """The one pass that gives the law of every token given those before it: `[B, N]` int64, by position."""
        predicts = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        visible = predicts[0] < predicts[..., None]  # [B, N, N]
        return cls(tokens.roll(1, 1), (predicts - 1).clamp(min=0), predicts, visible, prompt_end=True)


def after_prompt_end(query: Query, places: torch.Tensor) -> torch.Tensor:
    """Places of a query's tokens in a row that begins with the end of the prompt: canvas place s is s + 1 there.

    Args:
        query: whose slot 0 may feed the end of the prompt.
        places: `[B, Q]` int64, positions or canvas slots of its tokens.
    """
    shifted = places + 1
    if query.prompt_end:
        shifted[:, 0] = 0
    return shifted
