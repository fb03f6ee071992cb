"""Branches save passes and change nothing else."""

import pytest
import torch

from sjd_pipelines import AutoregressiveScheduler, SeededJacobiScheduler, TreeJacobiScheduler

from .conftest import run


@pytest.mark.parametrize("window", [1, 2, 5, 16, 100])
@pytest.mark.parametrize(("branches", "depth"), [(1, 1), (1, 4), (4, 1), (4, 6), (8, 12)])
def test_every_tree_draws_the_sequential_picture(wide, window, branches, depth):
    reference = run(wide, AutoregressiveScheduler())
    tree = run(wide, TreeJacobiScheduler(window=window, branches=branches, depth=depth))
    assert torch.equal(tree.tokens, reference.tokens)
    assert max(max(row) for row in tree.statistics.committed_per_pass) <= window + 1


def test_branches_save_passes(wide):
    chain = run(wide, SeededJacobiScheduler(window=16)).statistics.forward_passes
    tree = run(wide, TreeJacobiScheduler(window=16, branches=4, depth=6)).statistics.forward_passes
    assert sum(tree) < 0.95 * sum(chain)


def test_a_branch_that_leaves_its_keys_behind_is_caught(wide):
    class Immobile(TreeJacobiScheduler):
        def plan(self, state, noise):
            state.moves = None
            return super().plan(state, noise)

    reference = run(wide, AutoregressiveScheduler())
    assert not torch.equal(run(wide, Immobile(window=16, branches=4, depth=6)).tokens, reference.tokens)


@pytest.mark.parametrize("setting", ["branches", "depth"])
def test_bad_settings_are_refused(setting):
    with pytest.raises(ValueError, match=rf"{setting} must be an integer from 1 to \d+, got 0\."):
        TreeJacobiScheduler(**{setting: 0})
