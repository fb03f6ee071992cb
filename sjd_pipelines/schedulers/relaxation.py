"""Relaxed rules: what may pass for a draft besides itself. Each is a function of laws and drafts, whoever drew them.

With `p` the target and `q` the law of a draft `x`, all of them accept with probability min(1, P/Q), where P and Q
stand for more than `x` alone. Relaxation changes the distribution: every scheduler that uses it is approximate.
"""

import torch
from torch.nn.functional import embedding, pad


def confident(
    probability: torch.Tensor, draft_probability: torch.Tensor, confidence: str, threshold: float
) -> torch.Tensor:
    """Drafts worth keeping though not yet verified: p/q (`ratio`) or p (`probability`) above a threshold.

    SJD++ (Teng et al. 2025, arXiv 2512.07503) reuses confident drafts; it looks at the drawn token, so what is kept
    no longer has the law stored with it.

    Args:
        probability: `[B, W]` float32, of each draft under the target.
        draft_probability: `[B, W]` float32, of each draft under the law it was drawn from.
        confidence: `ratio` or `probability`.
        threshold: drafts above it stay.

    Returns:
        `[B, W]` bool.
    """
    if confidence == "probability":
        return probability > threshold
    return probability > threshold * draft_probability


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
    around = _around_near_the_top if target.device.type == "cpu" else _around
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
    """`_around` for a CPU, which may look at its numbers: drafts mostly are among the first tokens of the ranking."""
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


def nearest_codes(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` nearest other entries of a codebook, nearest first: `[V, E]` -> `[V, min(count, V - 1)]` int64."""
    vectors = vectors.float()
    tables = []
    for start in range(0, len(vectors), 1024):  # all pairs at once would take V * V floats
        distances = torch.cdist(vectors[start : start + 1024], vectors)
        rows = torch.arange(len(distances), device=vectors.device)
        distances[rows, start + rows] = torch.inf
        tables.append(distances.topk(min(count, len(vectors) - 1), -1, largest=False).indices)
    return torch.cat(tables)


def neighbour_mass(
    target: torch.Tensor, drafts: torch.Tensor, neighbours: torch.Tensor, bound: float | torch.Tensor
) -> torch.Tensor:
    """Target mass of a draft's latent neighbours, nearest first, as far as it stays within `bound`.

    LANTERN (Jang et al. 2024, arXiv 2410.03355) bounds it by a constant; LANTERN++ (Park et al. 2025,
    arXiv 2502.06352) by a multiple of p. The mass is the total variation of moving it all onto the draft.

    Args:
        target: `[B, W, V]` float32.
        drafts: `[B, W]` int64.
        neighbours: `[codes, k]` int64, nearest first.
        bound: a number, or one per draft `[B, W, 1]`.

    Returns:
        `[B, W]` float32.
    """
    codes = drafts.clamp(max=len(neighbours) - 1)  # structural ids get a row without mass
    nearest = embedding(codes, neighbours)  # [B, W, k]
    reached = target.gather(-1, nearest).cumsum(-1)
    return reached.masked_fill(reached > bound, 0.0).amax(-1)


def annealed_factors(window: int, relaxation: float, decay: float, device: torch.device | str) -> torch.Tensor:
    """Factors of p that fall over the window as exp(-decay * slot) with mean `relaxation`, never below 1: `[W]`.

    Cool-SD (Li et al. 2026, arXiv 2601.09212): relaxing early drafts more and late ones less costs less total
    variation than relaxing all alike. Below 1 a factor would reject more than plain verification, to no one's good.
    """
    weights = (-decay * torch.arange(window, device=device)).exp()
    return (relaxation * window / weights.sum() * weights).clamp(min=1)
