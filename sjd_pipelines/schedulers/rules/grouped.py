"""Grouped speculative decoding's rule: masses of a group are compared, not of a token."""

from dataclasses import dataclass, replace

import torch
from torch.nn.functional import embedding, pad

from ...decoding.look import look_is_free
from ...decoding.target import Target
from .speculative import Drafted, Speculative


@dataclass(frozen=True)
class Grouped(Speculative):
    """GSD (So et al. 2025, arXiv 2508.07747). A rejected draft is replaced from the residual of single tokens.

    Args:
        group_size: tokens per group at most.
        gap: members differ from the draft by less than this probability.
        distance: members are nearer to the draft than this, in units of the codebook's root mean square distance of
            two entries; None looks at probabilities only.
        keep_truncation: groups keep to the tokens that top-k and top-p leave, and a draft that they exclude fails;
            False is the rule as published.
        vectors: `[V, E]`, the codebook in these units, where the rule is at work.
    """

    group_size: int
    gap: float
    distance: float | None
    keep_truncation: bool = True
    vectors: torch.Tensor | None = None

    def running(self, target: Target) -> "Grouped":
        if self.distance is None:
            return self
        vectors = target.codebook().float()
        # Codebooks differ in scale: over all pairs of entries the mean of |a - b|^2 is twice the variance.
        scale = (2 * vectors.var(0, correction=min(1, len(vectors) - 1)).sum()).sqrt()
        return replace(self, vectors=vectors / torch.where(scale > 0, scale, 1.0))

    def masses(self, drafted: Drafted) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, member = groups(
            drafted.target, drafted.tokens, self.group_size, self.gap, self.vectors, self.distance or 0.0
        )
        target = drafted.target.gather(-1, tokens)
        if self.keep_truncation:
            # The draft comes first: one that is truncated itself has no group, and no mass to pass with.
            member = member & (target > 0) & (target[..., :1] > 0)
        mass, draft_mass = (law.masked_fill(~member, 0.0).sum(-1) for law in (target, drafted.law_at(tokens)))
        return mass, draft_mass


def groups(
    target: torch.Tensor,
    drafts: torch.Tensor,
    group_size: int,
    gap: float,
    vectors: torch.Tensor | None,
    distance: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The group around each draft: its neighbours in the ranking by target probability.

    Grouped speculative decoding (So et al. 2025, arXiv 2508.07747): from the `group_size` tokens nearest in rank
    those stay whose probability differs by less than `gap` and whose codebook vector is nearer than `distance`.

    Args:
        target: `[B, W, V]` float32.
        drafts: `[B, W]` int64.
        group_size: tokens per group at most, the draft included.
        gap: bound on the difference of probabilities.
        vectors: `[codes, E]` codebook, or None to ignore distances.
        distance: bound on the distance of codebook vectors.

    Returns:
        `[B, W, C]` int64 tokens, C > G, and `[B, W, C]` bool, which of them are members. The draft comes first.
    """
    drafts = drafts[..., None]
    level = target.gather(-1, drafts)
    around = _around_near_the_top if look_is_free(target) else _around
    tokens, member = around(target, drafts, level, group_size)
    member = member & ((target.gather(-1, tokens) - level).abs() < gap)
    if vectors is not None:
        last = len(vectors) - 1  # structural ids have no vector, and no mass where a group could matter
        nearby, own = (embedding(ids.clamp(max=last), vectors) for ids in (tokens, drafts))
        member = member & ((nearby - own).norm(dim=-1) < distance)  # [B, W, G, E] -> [B, W, G]
    return torch.cat([drafts, tokens], -1), torch.cat([torch.ones_like(member[..., :1]), member], -1)


def _around(
    target: torch.Tensor, drafts: torch.Tensor, level: torch.Tensor, group_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens at the ranks around the draft, and which of them a group of that size takes: `[..., G]` int64 and bool.

    The smallest of what is above the draft and the largest of what is not, without sorting the rest. Drafts and their
    probability `level` are `[..., 1]`.
    """
    more, fewer = (min(count, target.shape[-1]) for count in (group_size // 2, (group_size - 1) // 2))
    higher = target > level
    above, above_tokens = torch.where(higher, target, torch.inf).topk(more, -1, largest=False)
    others = torch.where(higher, -torch.inf, target).scatter_(-1, drafts, -torch.inf)
    below, below_tokens = others.topk(fewer, -1)
    tokens, member = torch.cat([above_tokens, below_tokens], -1), torch.cat([above, below], -1).isfinite()
    missing = (0, group_size - tokens.shape[-1])  # places in a group that no other token can take
    return pad(tokens, missing), pad(member, missing)


def _around_near_the_top(
    target: torch.Tensor, drafts: torch.Tensor, level: torch.Tensor, group_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`_around` where a look is free: drafts mostly are among the first tokens of the ranking."""
    more, fewer = group_size // 2, (group_size - 1) // 2
    count = min(target.shape[-1], max(32, target.shape[-1] // 64))
    ordered, ranking = target.topk(count, -1)
    rank = (ordered > level).sum(-1, keepdim=True)
    index = rank + torch.arange(-more, fewer + 1, device=rank.device)  # [..., G]
    tokens = ranking.gather(-1, index.clamp(0, count - 1))
    others = (index >= 0) & (index < count) & (tokens != drafts)
    # From its rank on there is one too many, where the draft itself is not among those of equal probability.
    others[..., more:] &= others[..., more:].cumsum(-1) <= fewer
    far = rank[..., 0] + fewer >= count
    if count < target.shape[-1] and far.any():
        tokens[far], others[far] = _around(*(values[far] for values in (target, drafts, level)), group_size)
    return tokens, others
