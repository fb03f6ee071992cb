"""Action tokens of a robot policy, many at a time: greedy Jacobi decoding of a language model, with early exit.

What CEED-VLA (Song et al. 2025, arXiv 2506.13725) does to OpenVLA, for any causal language model of transformers, with
or without pictures. A policy reads an observation and answers with a chunk of tokens, each the bin of one joint's
motion:

    actions = ActionVocabulary(vocabulary_size=model.config.text_config.vocab_size, low=q01, high=q99)
    inputs = processor(text="In: What action should the robot take to open the drawer?\\nOut: ", images=camera, ...)
    chunk = decode_chunk(model, actions, length=21, exit_after=8, **inputs)
    motion = actions.motions(chunk.tokens)  # [B, 21] in the robot's units; three steps of seven joints

The tokens are those of `model.generate` (greedy, among the action tokens) unless `exit_after` ends the iteration
before it has converged, which `chunk.converged` tells. A policy must be distilled to be right that early: the paper
measured that without it robots fail.

A chunk has a fixed length and no end token, so that a wrong guess can't end it or begin another one. Keys and values
of guesses that may still change are cut from the cache after each pass: transformers changes a cache in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from sjd_pipelines.decoding import cache_keyword


@dataclass(frozen=True)
class ActionVocabulary:
    """The last `bins` tokens of a vocabulary as motions, the last token being the lowest bin.

    Attributes:
        vocabulary_size: of the model.
        bins: how many tokens mean motions.
        low: of the motion that a joint makes, one number for all joints or one for each.
        high: likewise.

    Raises:
        ValueError: there are no bins, or more than tokens.
    """

    vocabulary_size: int
    bins: int = 256
    low: float | Sequence[float] = -1.0
    high: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= self.vocabulary_size:
            raise ValueError(f"bins must be from 1 to {self.vocabulary_size}, the vocabulary's size, got {self.bins}.")

    @property
    def first(self) -> int:
        """The smallest token that means a motion."""
        return self.vocabulary_size - self.bins

    def motions(self, tokens: torch.Tensor) -> torch.Tensor:
        """The middle of each token's bin: `[..., length]` int64 -> float32, the joints one after another, in turn."""
        share = (self.vocabulary_size - 1 - tokens + 0.5) / self.bins
        low, high = (self._of_joints(bound, tokens) for bound in (self.low, self.high))
        return low + (high - low) * share

    def tokens(self, motions: torch.Tensor) -> torch.Tensor:
        """The tokens of motions, `[..., length]`; those out of range are taken to its ends."""
        low, high = (self._of_joints(bound, motions) for bound in (self.low, self.high))
        bins = ((motions - low) / (high - low) * self.bins).floor().clamp(0, self.bins - 1).long()
        return self.vocabulary_size - 1 - bins

    def _of_joints(self, bound: float | Sequence[float], values: torch.Tensor) -> torch.Tensor:
        """A bound for every entry of `[..., length]`."""
        bounds = torch.as_tensor(bound, dtype=torch.float32, device=values.device).reshape(-1)
        if values.shape[-1] % len(bounds):
            raise ValueError(f"{values.shape[-1]} tokens are no whole number of steps of {len(bounds)} joints.")
        return bounds.repeat(values.shape[-1] // len(bounds))


@dataclass(frozen=True)
class Chunk:
    """What `decode_chunk` gives.

    Attributes:
        tokens: `[B, length]` int64.
        passes: forward passes after the one over the prompt.
        converged: `[B]` bool: whether the tokens are those of sequential decoding.
    """

    tokens: torch.Tensor
    passes: int
    converged: torch.Tensor


@torch.no_grad()
def decode_chunk(
    model: PreTrainedModel,
    actions: ActionVocabulary,
    length: int,
    exit_after: int | None = None,
    drafts: torch.Tensor | None = None,
    **inputs: Any,
) -> Chunk:
    """Decode one chunk for every row of a batch.

    Args:
        model: a causal language model with a cache, such as LLaVA's or OpenVLA's.
        actions: its action tokens.
        length: tokens of the chunk.
        exit_after: passes after which the tokens are given out as they are; None goes on to the fixed point, which
            takes `length - 1` passes at most.
        drafts: `[B, length]` int64, the first guesses, for instance the previous chunk moved on (`moved_on`); None
            guesses that nothing moves.
        **inputs: of the model's `forward`, `input_ids` `[B, P]` and `attention_mask` among them, padded on the left.

    Raises:
        ValueError: the length, the number of passes or the shape of the guesses is out of range.
    """
    batch = len(inputs["input_ids"])
    if length < 1 or (exit_after is not None and exit_after < 0):
        raise ValueError(f"length must be at least 1 and exit_after at least 0, got {length} and {exit_after}.")
    if drafts is not None and drafts.shape != (batch, length):
        raise ValueError(f"drafts must have the shape {(batch, length)}, got {tuple(drafts.shape)}.")
    prompt = _Prompt(model, actions, inputs)
    tokens = torch.full((batch, length), actions.vocabulary_size - 1 - actions.bins // 2, device=prompt.first.device)
    tokens = tokens if drafts is None else drafts.to(tokens, copy=True)
    tokens[:, 0] = prompt.first
    known = torch.ones(batch, dtype=torch.int64, device=tokens.device)  # leading tokens that are final
    passes = cached = 0  # cached: tokens of the chunk whose keys and values are kept, the same in all rows
    while known.min() < length and passes != exit_after:
        guesses, places = tokens[:, cached + 1 :], torch.arange(cached + 1, length, device=tokens.device)
        chosen = prompt.choose(tokens[:, cached:-1], cached)  # [B, length - 1 - cached], at those places
        chosen = torch.where(places < known[:, None], guesses, chosen)
        held = (chosen == guesses).long().cumprod(1).sum(1)  # guesses that stay, those known before among them
        tokens = torch.cat([tokens[:, : cached + 1], chosen], 1)
        known = (cached + 1 + held + 1).clamp(max=length)
        keep = min(int(known.min()) - 1, length - 1)  # the last known token may have been fed as another one
        prompt.forget(length - 1 - keep)
        cached, passes = keep, passes + 1
    return Chunk(tokens, passes, known >= length)


def moved_on(tokens: torch.Tensor, joints: int) -> torch.Tensor:
    """A chunk without its first step, the last one repeated: guesses for the chunk after it, `[B, length]`."""
    return torch.cat([tokens[:, joints:], tokens[:, -joints:]], 1)


class _Prompt:
    """A model with a prompt in its cache, and its choices of action tokens behind it."""

    def __init__(self, model: PreTrainedModel, actions: ActionVocabulary, inputs: dict[str, Any]):
        self.model, self.actions = model, actions
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        self.mask = torch.ones_like(ids) if mask is None else mask
        positions = (self.mask.long().cumsum(1) - 1).clamp(min=0)
        given = {"attention_mask": self.mask, "position_ids": positions} | inputs
        self.cache, self.next_position = DynamicCache(config=model.config), positions[:, -1:] + 1
        output = model(**given, use_cache=True, **{cache_keyword(): self.cache})
        self.first = self._likeliest(output.logits[:, -1:])[:, 0]  # [B]

    def choose(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        """Feed `[B, Q]` tokens of the chunk from `start` on; the choice after each of them, `[B, Q]`."""
        seen = self.mask.new_ones(len(tokens), start + tokens.shape[1])
        output = self.model(
            input_ids=tokens,
            attention_mask=torch.cat([self.mask, seen], 1),
            position_ids=self.next_position + start + torch.arange(tokens.shape[1], device=tokens.device),
            use_cache=True,
            **{cache_keyword(): self.cache},
        )
        return self._likeliest(output.logits)

    def forget(self, count: int) -> None:
        """Cut the last tokens from the cache."""
        if count:
            self.cache.crop(-count)

    def _likeliest(self, logits: torch.Tensor) -> torch.Tensor:
        """`[B, Q, V]` -> `[B, Q]` int64, among the action tokens."""
        return logits[..., self.actions.first : self.actions.vocabulary_size].argmax(-1) + self.actions.first
