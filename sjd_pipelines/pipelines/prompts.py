"""The prompt as the transformer reads it."""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad


@dataclass
class EncodedPrompt:
    """Prompt rows as the transformer reads them: R = B without guidance, 2B with it (conditional rows first).

    Attributes:
        embeds: `[R, P, D]`; the output after the last one predicts the first image token.
        visible: `[R, P]` bool, False for padding.
        position_ids: `[R, P]` int64, or `[R, P, axes]` for a family with several; those of image tokens are made of
            the last one, see `image_position_ids`. None counts the visible tokens of each row from 0.
    """

    embeds: torch.Tensor
    visible: torch.Tensor
    position_ids: torch.Tensor | None = None

    def __post_init__(self):
        if self.position_ids is None:
            self.position_ids = (self.visible.long().cumsum(-1) - 1).clamp(min=0)

    def padded(self, block: int) -> "EncodedPrompt":
        """With invisible tokens in front, so that the number of tokens is a multiple of `block`."""
        missing = -self.embeds.shape[1] % block
        axes = (0, 0) * (self.position_ids.dim() - 2)
        return EncodedPrompt(
            pad(self.embeds, (0, 0, missing, 0)),
            pad(self.visible, (missing, 0)),
            pad(self.position_ids, (*axes, missing, 0)),
        )

    def repeat_images(self, prompts: int, images: int) -> "EncodedPrompt":
        """Rows of `prompts` prompts, C times -> rows of their pictures, C times, those of a prompt side by side."""

        def repeated(rows: torch.Tensor) -> torch.Tensor:  # [C * prompts, ...] -> [C * prompts * images, ...]
            return rows.unflatten(0, (-1, prompts)).repeat_interleave(images, 1).flatten(0, 1)

        return EncodedPrompt(repeated(self.embeds), repeated(self.visible), repeated(self.position_ids))
