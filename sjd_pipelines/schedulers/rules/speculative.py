"""Speculative acceptance, the rule that keeps the target's law and that all relaxed rules widen.

With `p` the target and `q` the law of a draft `x`, every rule accepts with probability min(1, P/Q). Here P and Q are
p(x) and q(x); a relaxed rule lets them stand for more than `x` alone. Relaxation changes the distribution: every
scheduler that uses it is approximate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType

import torch

from ...decoding.look import look_is_free
from ...decoding.target import Target
from ..verification import at_drafts

Depth = EllipsisType | slice | torch.Tensor


@dataclass
class Drafted:
    """Drafts and the laws that decide over them, wherever they stand: in a window, a tree or rows.

    Attributes:
        target: `[B, D, V]` float32, p of each draft, after guidance, mask, temperature and truncation.
        tokens: `[B, D]` int64.
        law_at: tokens, `[B, D]` or `[B, D, K]` int64, to their probability under q, the law of the draft.
        span: how many drafts a path of this pass has at most.
        depth: how many drafts stand in front of each, as an index of `[span]` that gives `[D]` or `[B, D]`.
        useful: says how many drafts of `span` each picture can still use, at least 1: `[B, 1]`; None: all.
    """

    target: torch.Tensor
    tokens: torch.Tensor
    law_at: Callable[[torch.Tensor], torch.Tensor]
    span: int
    depth: Depth = ...
    useful: Callable[[], torch.Tensor] | None = None

    @cached_property
    def probability(self) -> torch.Tensor:
        """`[B, D]`: of each draft under the target."""
        return at_drafts(self.target, self.tokens)

    @cached_property
    def draft_probability(self) -> torch.Tensor:
        """`[B, D]`: of each draft under the law it was sampled from."""
        return self.law_at(self.tokens)


class Speculative:
    """Accept each draft with probability min(1, p/q): Leviathan et al. 2023, Alg. 1; SJD, Teng et al. 2024, eq. 4.

    A relaxed rule overrides `masses`, or `taken`, or both; one that needs the codebook, `running` too.
    """

    def running(self, target: Target) -> "Speculative":
        """The rule at work on a run of this target. A rule itself holds settings alone: any runs may share it."""
        return self

    def masses(self, drafted: Drafted) -> tuple[torch.Tensor, torch.Tensor]:
        """P and Q of each draft: `[B, D]` float32 twice."""
        return drafted.probability, drafted.draft_probability

    def taken(self, target: torch.Tensor, draft_law: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
        """What the rejection of a draft takes from the target: `[..., V]` twice, `[...]` -> `[..., V]`."""
        return draft_law

    def accept(self, drafted: Drafted, uniforms: torch.Tensor) -> torch.Tensor:
        """Which drafts pass, each on its own, by numbers in [0, 1): `[B, D]` float32 -> `[B, D]` bool."""
        mass, draft_mass = self.masses(drafted)
        return speculative_accept(mass, draft_mass, uniforms)

    def residual(self, target: torch.Tensor, draft_law: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
        """The law of the token after a rejection, up to its norm; see `residual` for the shapes.

        A draft law of zeros stands for a slot without a draft, whatever `drafts` `[B, D]` says there.
        """
        return residual(target, self.taken(target[:, : draft_law.shape[1]], draft_law, drafts))

    def choose(
        self,
        target: torch.Tensor,
        draft_law: torch.Tensor,
        siblings: torch.Tensor,
        uniforms: torch.Tensor,
        span: int = 1,
        depth: Depth = ...,
        useful: Callable[[], torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Accept the first of several drafts at one place that passes; under the plain rule the outcome has law p.

        Recursive rejection (Jeon et al. 2024, arXiv 2402.14160; Yang et al. 2024, arXiv 2401.06706): sibling k is
        accepted with probability min(1, P/Q). If it is not, p becomes the norm of what the rejection leaves of it and
        q is normalised without the sibling. A sibling that q cannot produce is passed over: a law of zeros has none.
        To test siblings independently and take the longest path that holds, as some releases do, is biased.

        Args:
            target: `[..., V]` float32, p, rows sum to one.
            draft_law: `[..., V]` float32, q, rows sum to one, or to zero where nothing is drafted.
            siblings: `[..., K]` int64, sampled from `draft_law` in this order without replacement.
            uniforms: `[..., K]` float32 in [0, 1), independent of each other and of the draws.
            span: as in `Drafted`.
            depth: as in `Drafted`.
            useful: as in `Drafted`.

        Returns:
            `[...]` int64, which sibling is accepted, K where none is; and `[..., V]` float32, the law of the token to
            draw where none is (rows sum to one; of no use where one is accepted).
        """
        count = siblings.shape[-1]
        failed = torch.ones_like(siblings[..., 0], dtype=torch.bool)  # [...]
        accepted = torch.zeros_like(siblings[..., 0])
        for index, (token, uniform) in enumerate(zip(siblings.unbind(-1), uniforms.unbind(-1))):
            drafted = Drafted(target, token, lookup(draft_law), span, depth, useful)
            sampled = drafted.draft_probability > 0
            failed = failed > (sampled & self.accept(drafted, uniform))  # bools: failed before, and now too
            accepted = accepted + failed
            if look_is_free(failed) and not failed.any():
                break
            left = (target - self.taken(target, draft_law, token)).clamp_(min=0)
            mass = left.sum(-1, keepdim=True)
            # No mass left: p and q are equal up to rounding, and what was rejected could not be.
            target = torch.where(sampled[..., None] & (mass > 0), left / mass, target)
            if index + 1 < count:
                draft_law = draft_law.scatter(-1, token[..., None], 0.0)
                draft_law = draft_law / draft_law.sum(-1, keepdim=True).clamp(min=torch.finfo(draft_law.dtype).tiny)
        return accepted, target


def speculative_accept(
    probability: torch.Tensor, draft_probability: torch.Tensor, uniforms: torch.Tensor
) -> torch.Tensor:
    """Accept with probability min(1, p/q): `[...]` float32 thrice, `uniforms` in [0, 1) -> `[...]` bool."""
    return uniforms * draft_probability < probability


def residual(target: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    """What a rejection leaves of the target, (p - q)_+ up to its norm (Leviathan et al. 2023, Alg. 1).

    Where rounding leaves nothing of it, p and q are equal and p itself is returned.

    Args:
        target: `[B, S, V]` float32.
        taken: `[B, D, V]` float32, q of the first D <= S slots; the slots after them have no draft, and keep p.

    Returns:
        `[B, S, V]` float32, not normalised.
    """
    drafted = taken.shape[1]
    remainder = target.clone()
    remainder[:, :drafted].sub_(taken).clamp_(min=0)
    return torch.where(remainder.sum(-1, keepdim=True) > 0, remainder, target)


def lookup(law: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A law as `Drafted.law_at`: `[..., V]` -> a function of `[...]` or `[..., K]` tokens."""
    return lambda tokens: law.gather(-1, tokens) if tokens.dim() == law.dim() else at_drafts(law, tokens)
