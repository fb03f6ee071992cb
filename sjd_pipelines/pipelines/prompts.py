"""The prompt as the transformer reads it, and what remains of it while image tokens are decoded."""

from dataclasses import dataclass

import torch

from ..decoding import CanvasCache
from .drafting import RunningDrafter
from .revising import RunningReviser


@dataclass
class EncodedPrompt:
    """Prompt rows as the transformer reads them: R = B without guidance, 2B with it (conditional rows first).

    Attributes:
        embeds: `[R, P, D]`; the output behind the last one predicts the first image token.
        visible: `[R, P]` bool, False for padding.
        position_ids: `[R, P]` int64; image token p stands p + 1 behind the last one. None counts the visible tokens
            of each row from 0.
    """

    embeds: torch.Tensor
    visible: torch.Tensor
    position_ids: torch.Tensor | None = None

    def __post_init__(self):
        if self.position_ids is None:
            self.position_ids = (self.visible.long().cumsum(-1) - 1).clamp(min=0)

    def repeat_images(self, prompts: int, images: int) -> "EncodedPrompt":
        """Rows of `prompts` prompts, C times -> rows of their pictures, C times, those of a prompt side by side."""

        def repeated(rows: torch.Tensor) -> torch.Tensor:  # [C * prompts, ...] -> [C * prompts * images, ...]
            return rows.unflatten(0, (-1, prompts)).repeat_interleave(images, 1).flatten(0, 1)

        return EncodedPrompt(repeated(self.embeds), repeated(self.visible), repeated(self.position_ids))


@dataclass
class PromptMemory:
    """The prefilled prompt and what a window needs of it."""

    cache: CanvasCache
    image_embeds: torch.Tensor  # [V, D]: of every image token; looked up, not computed, in each pass
    last_embed: torch.Tensor  # [R, 1, D]: last prompt token, fed as position -1
    visible: torch.Tensor  # [R, P] bool
    last_position: torch.Tensor  # [R, 1] int64
    guidance_scale: float
    drafter: RunningDrafter | None = None  # looks on, where the scheduler needs a draft model
    reviser: RunningReviser | None = None  # the same

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1


def attention_bias(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What attention adds to its scores: `[R, Q, L]` bool -> `[R, 1, Q, L]`, 0 where visible and -inf elsewhere.

    Made once per pass: a boolean mask would be converted again in every layer.
    """
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)[:, None]
