"""The tree of siblings keeps the law, and saves passes."""

import pytest
import torch

from sjd_pipelines import CoupledSJDScheduler, SJDPACScheduler
from sjd_pipelines.benchmark.exactness import enumerable_pipeline, judge
from sjd_pipelines.schedulers.draft_tree import draft_trees, nodes_of_full_tree
from sjd_pipelines.schedulers.rules.speculative import Speculative, residual, speculative_accept

from .conftest import PROMPTS, run

SAMPLES = 6000


@pytest.fixture(scope="module")
def toy(device):
    return enumerable_pipeline().to(device)


@pytest.mark.parametrize("window", [1, 2, 3, 8])
@pytest.mark.parametrize(("branches", "depth"), [(2, 3), (4, 2)])
def test_trees_draw_from_the_law(toy, window, branches, depth):
    verdict = judge(toy, SJDPACScheduler(window=window, branches=branches, depth=depth), SAMPLES, seed=window)
    assert verdict.passed, verdict


@pytest.mark.parametrize("initialise", ["random", "law-left"])
def test_no_initialisation_biases_the_tree(toy, initialise):
    verdict = judge(toy, SJDPACScheduler(window=3, branches=3, initialise=initialise), SAMPLES, seed=7)
    assert verdict.passed, verdict


class IndependentSiblings(SJDPACScheduler):
    """Tests siblings independently and goes down the first that passes, as the release goes down the longest path."""

    class Rule(Speculative):
        def choose(self, target, draft_law, siblings, uniforms, span, depth):
            keep = speculative_accept(target.gather(-1, siblings), draft_law.gather(-1, siblings), uniforms)
            accepted = torch.where(keep.any(-1), keep.long().argmax(-1), siblings.shape[-1])
            return accepted, residual(target, draft_law)

    acceptance = Rule()


class StaleLaw(SJDPACScheduler):
    """Keeps the old laws of the main chain beside its redrafts."""

    def step(self, probabilities, query, state, noise):
        positions = query.positions[:, 1 : state.window + 1]
        old = state.laws.read(positions)
        state = super().step(probabilities, query, state, noise)
        state.laws.write(positions, old)
        return state


@pytest.mark.parametrize("broken", [IndependentSiblings, StaleLaw], ids=lambda cls: cls.__name__)
def test_broken_twins_are_caught(toy, broken):
    verdict = judge(toy, broken(window=3, branches=3, depth=2), 2 * SAMPLES, seed=3)
    assert not verdict.passed, verdict


def test_one_branch_is_coupled_sjd(wide):
    coupled = run(wide, CoupledSJDScheduler(window=9))
    single = run(wide, SJDPACScheduler(window=9, branches=1, depth=3))
    assert torch.equal(coupled.tokens, single.tokens)
    assert coupled.statistics.forward_passes == single.statistics.forward_passes


@pytest.mark.parametrize("window", [1, 2, 16, 100])
@pytest.mark.parametrize(("branches", "depth"), [(2, 4), (50, 1)])
def test_batch_equals_singles(wide, window, branches, depth):
    scheduler = SJDPACScheduler(window=window, branches=branches, depth=depth)
    batch = run(wide, scheduler)
    assert max(max(row) for row in batch.statistics.committed_per_pass) <= window + 1
    for row in (0, 3):
        seed = torch.Generator().manual_seed(row)
        single = wide(PROMPTS[row], guidance_scale=2.0, generator=seed, output_type="latent")
        assert torch.equal(single.tokens[0], batch.tokens[row])
        assert single.statistics.forward_passes[0] == batch.statistics.forward_passes[row]


def test_siblings_save_passes(wide):
    chain = run(wide, CoupledSJDScheduler(window=16)).statistics.forward_passes
    tree = run(wide, SJDPACScheduler(window=16)).statistics.forward_passes
    assert sum(tree) < 0.95 * sum(chain)


def test_every_node_of_the_tree_has_its_own_path():
    trees = draft_trees(nodes_of_full_tree(3, 2), 3, 2, torch.device("cpu"))
    assert [tree.size for tree in trees] == [1, 3, 7, 15]
    tree = trees[-1]
    assert tree.main.tolist() == [0, 1, 3, 7]
    assert tree.side_number.tolist() == [-1, -1, 0, -1, 1, 2, 3, -1, 4, 5, 6, 7, 8, 9, 10]
    assert tree.depth.tolist() == [0, 1, 1, 2, 2, 2, 2, *[3] * 8]
    # Node 12 is the second child of node 5, the first child of node 2, a child of the committed token.
    assert tree.ancestors[12].nonzero()[:, 0].tolist() == [0, 2, 5, 12]
    assert torch.equal(tree.children, torch.arange(1, 15).view(7, 2))  # inner nodes are numbered without gaps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"branches": 0}, r"branches must be an integer from 1 to 1024, got 0\."),
        ({"depth": 0}, r"depth must be an integer from 1 to 64, got 0\."),
        ({"branches": 8, "depth": 4}, r"branches \*\* depth must be at most 1024, got 4096\."),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SJDPACScheduler(**settings)
