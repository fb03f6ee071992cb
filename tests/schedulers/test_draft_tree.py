"""The shape of draft trees."""

from itertools import pairwise

import pytest
import torch

from sjd_pipelines.schedulers.draft_tree import DraftTree, draft_trees, likeliest_paths


@pytest.mark.parametrize("size", [1, 2, 7, 40, 1000])
@pytest.mark.parametrize(("depth", "branches"), [(1, 1), (1, 4), (5, 1), (3, 2), (4, 3)])
def test_paths_make_a_tree_in_breadth_first_order(size, depth, branches):
    paths = likeliest_paths(size, depth, branches)
    everything = sum(branches**level for level in range(1, depth + 1))
    assert len(set(paths)) == len(paths) == min(size, everything)
    assert max(map(len, paths)) <= depth
    for path in paths:
        assert path[:-1] in ((), *paths)  # no node without its parent
        assert path[-1] == 0 or (*path[:-1], path[-1] - 1) in paths  # nor without the sibling before it
    assert paths == sorted(paths, key=lambda path: (len(path), path))


def test_larger_trees_hold_smaller_ones():
    trees = [set(likeliest_paths(size, 5, 3)) for size in (1, 4, 9, 20)]
    assert all(small < large for small, large in pairwise(trees))


def test_one_branch_is_a_chain():
    tree = DraftTree.build(likeliest_paths(10, 4, 1))
    assert tree.is_chain
    assert tree.depth.tolist() == [0, 1, 2, 3, 4]
    assert tree.paths[-1].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(tree.ancestors, torch.ones(5, 5).tril().bool())


def test_tables_of_a_small_tree():
    #      0
    #    1   2
    #  3   4   5
    tree = DraftTree.build([(0,), (1,), (0, 0), (0, 1), (1, 0)])
    assert not tree.is_chain
    assert tree.paths[:, -2].tolist() == [0, 1, 2, 1, 1, 2]
    assert tree.paths.tolist() == [[0, 0, 0], [0, 1, 1], [0, 2, 2], [0, 1, 3], [0, 1, 4], [0, 2, 5]]
    assert tree.ancestors[4].tolist() == [True, True, False, False, True, False]
    assert tree.inner.tolist() == [0, 1, 2]
    assert tree.parents.tolist() == [0, 0, 0]
    assert tree.widths == [1, 2]
    assert tree.children.tolist() == [[1, 2], [3, 4], [5, 5]]
    assert tree.parent_of.tolist() == [0, 0, 1, 1, 2]
    assert tree.rank.tolist() == [0, 1, 0, 1, 0]
    assert tree.main.tolist() == [0, 1, 3]
    assert tree.side.tolist() == [2, 4, 5]
    assert tree.side_number.tolist() == [-1, -1, 0, -1, 1, 2]
    first, second = tree.levels
    assert (first.inner.tolist(), first.branches, first.guesses.tolist()) == ([0], 2, [0, 1])
    assert (second.inner.tolist(), second.guesses.tolist()) == ([1, 2], [0, 1, 2])


def test_the_empty_tree_is_the_root():
    tree = DraftTree.build([])
    assert tree.size == 1
    assert tree.is_chain
    assert tree.levels == ()


def test_trees_are_cut_behind_each_level():
    trees = draft_trees(9, 4, 2, torch.device("cpu"))
    paths = likeliest_paths(9, 4, 2)
    assert [tree.size for tree in trees] == [1 + sum(len(path) <= levels for path in paths) for levels in range(5)]
    assert [len(tree.levels) for tree in trees] == [0, 1, 2, 3, 4]
