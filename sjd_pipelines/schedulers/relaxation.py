"""Relaxed rules: what may pass for a draft besides itself. Each is a function of laws and drafts, whoever drew them.

With `p` the target and `q` the law of a draft `x`, all of them accept with probability min(1, P/Q), where P and Q
stand for more than `x` alone. Relaxation changes the distribution: every scheduler that uses it is approximate.
"""

import torch


def relaxed_accept(mass: torch.Tensor, draft_mass: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Accept with probability min(1, mass / draft mass): three times `[B, W]` -> `[B, W]` bool."""
    return uniforms * draft_mass < mass


def at_drafts(law: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
    """Probability of each draft: `[B, W, V]`, `[B, W]` -> `[B, W]`."""
    return law.gather(-1, drafts[..., None])[..., 0]


def confident(
    target: torch.Tensor, draft_law: torch.Tensor, drafts: torch.Tensor, confidence: str, threshold: float
) -> torch.Tensor:
    """Drafts worth keeping though not yet verified: p/q (`ratio`) or p (`probability`) above a threshold.

    SJD++ (Teng et al. 2025, arXiv 2512.07503) reuses confident drafts; it looks at the drawn token, so what is kept
    no longer has the law stored with it.

    Args:
        target: `[B, W, V]` float32.
        draft_law: `[B, W, V]` float32, the law each draft was drawn from.
        drafts: `[B, W]` int64.
        confidence: `ratio` or `probability`.
        threshold: drafts above it stay.

    Returns:
        `[B, W]` bool.
    """
    p = at_drafts(target, drafts)
    if confidence == "probability":
        return p > threshold
    return p > threshold * at_drafts(draft_law, drafts)


def group_masses(
    target: torch.Tensor,
    draft_law: torch.Tensor,
    drafts: torch.Tensor,
    group_size: int,
    gap: float,
    vectors: torch.Tensor | None,
    distance: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Target and draft mass of the group around each draft: its neighbours in the ranking by target probability.

    Grouped speculative decoding (So et al. 2025, arXiv 2508.07747): from the `group_size` tokens nearest in rank
    those stay whose probability differs by less than `gap` and whose codebook vector is nearer than `distance`.

    Args:
        target: `[B, W, V]` float32.
        draft_law: `[B, W, V]` float32.
        drafts: `[B, W]` int64.
        group_size: tokens per group at most, the draft included.
        gap: bound on the difference of probabilities.
        vectors: `[codes, E]` codebook, or None to ignore distances.
        distance: bound on the distance of codebook vectors.

    Returns:
        Two `[B, W]` float32.
    """
    p, q = at_drafts(target, drafts), at_drafts(draft_law, drafts)
    level = p[..., None]
    # Only ranks around the draft matter: the smallest of what is above and the largest of what is not, unsorted.
    more, fewer = (min(count, target.shape[-1]) for count in (group_size // 2, (group_size - 1) // 2))
    higher = target > level
    above, above_tokens = torch.where(higher, target, torch.inf).topk(more, -1, largest=False)
    others = torch.where(higher, -torch.inf, target).scatter_(-1, drafts[..., None], -torch.inf)
    below, below_tokens = others.topk(fewer, -1)
    probabilities = torch.cat([above, below], -1)  # [B, W, G - 1], infinite beyond the ends of the ranking
    tokens = torch.cat([above_tokens, below_tokens], -1)
    member = (probabilities - level).abs() < gap
    if vectors is not None:
        last = len(vectors) - 1  # structural ids have no vector, and no mass where a group could matter
        offsets = vectors[tokens.clamp(max=last)] - vectors[drafts.clamp(max=last)][..., None, :]  # [B, W, G - 1, E]
        member = member & (offsets.norm(dim=-1) < distance)
    return (
        p + probabilities.masked_fill(~member, 0.0).sum(-1),
        q + draft_law.gather(-1, tokens).masked_fill(~member, 0.0).sum(-1),
    )


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
    nearest = neighbours[drafts.clamp(max=len(neighbours) - 1)]  # [B, W, k]; structural ids get a row without mass
    reached = target.gather(-1, nearest).cumsum(-1)
    return reached.masked_fill(reached > bound, 0.0).amax(-1)


def annealed_factors(window: int, relaxation: float, decay: float, device: torch.device | str) -> torch.Tensor:
    """Factors of p that fall over the window as exp(-decay * slot) with mean `relaxation`, never below 1: `[W]`.

    Cool-SD (Li et al. 2026, arXiv 2601.09212): relaxing early drafts more and late ones less costs less total
    variation than relaxing all alike. Below 1 a factor would reject more than plain verification, to no one's good.
    """
    weights = (-decay * torch.arange(window, device=device)).exp()
    return (relaxation * window / weights.sum() * weights).clamp(min=1)
