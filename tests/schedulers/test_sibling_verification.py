"""Recursive rejection over siblings: the exact law of its outcome, enumerated."""

from itertools import permutations

import pytest
import torch

from sjd_pipelines.schedulers.drafting import sample_siblings
from sjd_pipelines.schedulers.rules.speculative import Speculative, residual, speculative_accept

choose = Speculative().choose
VOCABULARY = 4
DRAWS = 100_000


def laws(seed, zeros=0):
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, VOCABULARY, generator=generator).mul(1.5).softmax(-1)
    q[torch.randperm(VOCABULARY, generator=generator)[:zeros]] = 0.0
    return p, q / q.sum()


def outcome(p, q, count, seed, verify):
    """Frequencies `[V]` of the token that `verify` ends with."""
    generator = torch.Generator().manual_seed(seed)
    p, q = p.expand(DRAWS, -1), q.expand(DRAWS, -1)
    siblings = sample_siblings(q, torch.empty(q.shape).exponential_(generator=generator), count)
    accepted, rest = verify(p, q, siblings, torch.rand(siblings.shape, generator=generator))
    other = (rest / torch.empty(rest.shape).exponential_(generator=generator)).argmax(-1)
    tokens = torch.cat([siblings, other[:, None]], -1).gather(-1, accepted[:, None])
    return tokens.flatten().bincount(minlength=VOCABULARY) / DRAWS


def independent(p, q, siblings, uniforms):
    """Broken: every sibling is tested against the untouched laws."""
    keep = speculative_accept(p.gather(-1, siblings), q.gather(-1, siblings), uniforms)
    accepted = torch.where(keep.any(-1), keep.long().argmax(-1), siblings.shape[1])
    return accepted, residual(p[:, None], q[:, None])[:, 0]


def stale(p, q, siblings, uniforms):
    """Broken: the residual of the first rejection, however many there were."""
    accepted, _ = choose(p, q, siblings, uniforms)
    return accepted, residual(p[:, None], q[:, None])[:, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("zeros", [0, 1, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_outcome_has_the_target_law(count, zeros, seed):
    p, q = laws(seed, zeros)
    distance = (outcome(p, q, count, seed, choose) - p).abs()
    assert (distance < 4 * (p * (1 - p) / DRAWS).sqrt()).all(), distance


@pytest.mark.parametrize("broken", [independent, stale])
def test_broken_recursions_are_caught(broken):
    p, q = laws(0)
    distance = (outcome(p, q, 2, 0, broken) - p).abs()
    assert (distance > 10 * (p * (1 - p) / DRAWS).sqrt()).any(), distance


def test_siblings_are_drawn_without_replacement_in_the_order_of_the_race():
    _, q = laws(3)
    noise = torch.empty(DRAWS, VOCABULARY).exponential_(generator=torch.Generator().manual_seed(0))
    siblings = sample_siblings(q.expand(DRAWS, -1), noise, 2)
    for first, second in permutations(range(VOCABULARY), 2):
        expected = q[first] * q[second] / (1 - q[first])
        measured = (siblings == torch.tensor([first, second])).all(-1).float().mean()
        assert abs(measured - expected) < 4 * (expected / DRAWS).sqrt()


def test_equal_laws_accept_the_first_sibling():
    p, _ = laws(0)
    accepted, _ = choose(p[None], p[None], torch.tensor([[2, 0]]), torch.tensor([[0.999, 0.0]]))
    assert accepted.tolist() == [0]


def test_a_law_of_zeros_has_no_siblings():
    p, _ = laws(0)
    accepted, rest = choose(p[None], torch.zeros(1, VOCABULARY), torch.tensor([[0, 1]]), torch.zeros(1, 2))
    assert accepted.tolist() == [2]
    assert torch.equal(rest[0], p)


def test_the_residual_is_that_of_the_recursion():
    p, q = torch.tensor([0.5, 0.3, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    _, rest = choose(p[None], q[None], torch.tensor([[3, 2]]), torch.full((1, 2), 0.9999))
    first = torch.tensor([0.8, 0.2, 0.0, 0.0])  # norm of (p - q)_+
    without = torch.tensor([1 / 6, 2 / 6, 3 / 6, 0.0])
    expected = (first - without).clamp(min=0)
    assert torch.allclose(rest[0], expected / expected.sum(), atol=1e-6)


def test_leading_shapes_are_kept():
    p, q = laws(5)
    noise = torch.empty(2, 3, VOCABULARY).exponential_(generator=torch.Generator().manual_seed(0))
    siblings = sample_siblings(q.expand(2, 3, -1), noise, 2)
    accepted, rest = choose(p.expand(2, 3, -1), q.expand(2, 3, -1), siblings, torch.full((2, 3, 2), 0.5))
    assert accepted.shape == (2, 3)
    assert rest.shape == (2, 3, VOCABULARY)
    assert torch.allclose(rest.sum(-1), torch.ones(2, 3))
