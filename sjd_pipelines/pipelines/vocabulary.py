"""A codebook inside a text model's vocabulary, for families that predict words and image tokens with one head."""

import torch
from torch import nn


def in_format_of(hidden: torch.Tensor, head: nn.Module) -> torch.Tensor:
    """`head(hidden)`, the weights of the head brought to the number format of `hidden` if theirs is another."""
    weights = dict(head.named_parameters())
    if all(weight.dtype == hidden.dtype for weight in weights.values() if weight.is_floating_point()):
        return head(hidden)
    cast = {name: weight.to(hidden.dtype) for name, weight in weights.items() if weight.is_floating_point()}
    return torch.func.functional_call(head, cast, (hidden,))


class ImageVocabulary:
    """Translates codebook ids and structural ids to vocabulary ids, on the device, and slices the head accordingly.

    Args:
        codebook: vocabulary id of each codebook entry; in any order, but a gapless block of the vocabulary.
        structural: vocabulary id of each structural token.
    """

    def __init__(self, codebook: list[int], structural: list[int]):
        self.first, self.size = min(codebook), len(codebook)
        if sorted(codebook) != list(range(self.first, self.first + self.size)):
            raise ValueError("The image tokens of this model are not a gapless block of its vocabulary.")
        self.structural = len(structural)
        self._ids = torch.tensor(codebook + structural)
        ordered = codebook == list(range(self.first, self.first + self.size))
        self._order = None if ordered else self._ids[: self.size] - self.first

    def ids(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Layout ids -> vocabulary ids, any shape."""
        self._ids = self._ids.to(token_ids.device)  # moved once; no transfer after the first pass
        return self._ids[token_ids]

    def logits(self, hidden: torch.Tensor, head: nn.Module) -> torch.Tensor:
        """`[R, Q, D]` -> `[R, Q, codebook + structural]`.

        Structural tokens occur at forced positions alone, where the law does not depend on their logit: it is zero.
        """
        if type(head) is nn.Linear and type(head.weight) is nn.Parameter and not hasattr(head, "_hf_hook"):
            block = slice(self.first, self.first + self.size)
            bias = None if head.bias is None else head.bias[block].to(hidden.dtype)
            logits = nn.functional.linear(hidden, head.weight[block].to(hidden.dtype), bias)
        else:  # quantised, adapted or offloaded: only the module itself knows its weight
            logits = in_format_of(hidden, head)[..., self.first : self.first + self.size]
        if self._order is not None:
            self._order = self._order.to(logits.device)
            logits = logits[..., self._order]
        return nn.functional.pad(logits, (0, self.structural))
