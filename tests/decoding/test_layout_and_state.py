import pytest
import torch

from sjd_pipelines.decoding import FREE, DecodingState, DecodingStatistics, ImageTokenLayout, PositionRing
from sjd_pipelines.decoding.layout import NOWHERE


def test_plain_grid():
    layout = ImageTokenLayout(2, 3, codebook_size=8)
    assert (layout.width, layout.num_tokens, layout.vocabulary_size, layout.has_forced) == (3, 6, 8, False)
    assert layout.is_raster
    assert (layout.forced_tokens() == FREE).all()
    # The two positions behind the image go on as a third row would.
    assert layout.neighbours("above", 8).tolist() == [NOWHERE] * 3 + [0, 1, 2, 3, 4]
    assert layout.neighbours("left", 8).tolist() == [NOWHERE, 0, 1, NOWHERE, 3, 4, NOWHERE, 6]
    assert (layout.reach("above"), layout.reach("left")) == (3, 1)
    assert layout.image_tokens(torch.arange(6)[None]).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_row_ends_and_tail_are_forced():
    layout = ImageTokenLayout(2, 2, codebook_size=8, structural_tokens=3, row_end=8, tail=(9, 10))
    assert layout.forced_tokens(length=10).tolist() == [FREE, FREE, 8, FREE, FREE, 8, 9, 10, 0, 0]
    tokens = torch.tensor([[1, 2, 8, 3, 4, 8, 9, 10]])
    assert layout.image_tokens(tokens).tolist() == [[1, 2, 3, 4]]


def test_an_order_says_when_each_cell_is_made():
    """Two regions, the left and the right half of 2 x 4 cells, in turn."""
    layout = ImageTokenLayout(2, 4, codebook_size=8, order=(0, 2, 1, 3, 4, 6, 5, 7))
    assert not layout.is_raster
    assert layout.cells(10).tolist() == [0, 2, 1, 3, 4, 6, 5, 7, 8, 9]
    tokens = torch.tensor([[10, 12, 11, 13, 14, 16, 15, 17]])
    assert layout.image_tokens(tokens).tolist() == [[10, 11, 12, 13, 14, 15, 16, 17]]
    assert layout.picture(tokens).tolist() == [[[10, 11, 12, 13], [14, 15, 16, 17]]]
    # Cell 2 is made before cell 1, its neighbour on the left; the token above is always made earlier.
    assert layout.neighbours("left", 8).tolist() == [NOWHERE, NOWHERE, 0, 1, NOWHERE, NOWHERE, 4, 5]
    assert layout.neighbours("above", 8).tolist() == [NOWHERE] * 4 + [0, 1, 2, 3]
    assert layout.reach("above") == 4


def test_forced_tokens_follow_the_order():
    layout = ImageTokenLayout(2, 1, 8, structural_tokens=2, row_end=8, tail=(9,), order=(4, 0, 2, 3, 1))
    assert layout.forced_tokens(length=6).tolist() == [9, FREE, FREE, 8, 8, 0]
    assert layout.image_tokens(torch.tensor([[9, 5, 6, 8, 8]])).tolist() == [[5, 6]]


def test_a_grid_may_come_before_the_picture():
    layout = ImageTokenLayout(2, 3, 8, structural_tokens=2, row_end=8, tail=(9,), earlier_grids=((1, 2),))
    assert layout.num_tokens == 3 + 8 + 1
    assert layout.forced_tokens().tolist() == [FREE, FREE, 8, FREE, FREE, FREE, 8, FREE, FREE, FREE, 8, 9]
    tokens = torch.arange(12)[None]
    assert layout.picture(tokens).tolist() == [[[3, 4, 5, 6], [7, 8, 9, 10]]]
    assert layout.image_tokens(tokens).tolist() == [[3, 4, 5, 7, 8, 9]]
    assert layout.neighbours("above", 11).tolist() == [NOWHERE] * 7 + [3, 4, 5, 6]
    assert layout.neighbours("left", 8).tolist() == [NOWHERE, 0, 1, NOWHERE, 3, 4, 5, NOWHERE]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": (0, 1, 2)}, r"order must be a permutation of 4 cells\."),
        ({"order": (0, 1, 2, 2)}, r"order must be a permutation of 4 cells\."),
        ({"earlier_grids": ((0, 2),)}, r"must be at least 1\."),
    ],
)
def test_impossible_layouts_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ImageTokenLayout(2, 2, 8, **settings)


def test_structural_ids_must_follow_the_codebook():
    with pytest.raises(ValueError, match=r"must lie in \[8, 9\), got \[3\]"):
        ImageTokenLayout(2, 2, codebook_size=8, structural_tokens=1, row_end=3)


def test_a_ring_remembers_the_most_recent_positions():
    ring = PositionRing(batch_size=2, size=4, vocabulary_size=2, device="cpu")
    laws = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2], [7, 8, 9]])
    ring.write(positions, laws)
    assert torch.equal(ring.read(positions), laws)
    ring.write(positions + 3, laws)
    assert torch.equal(ring.read(positions[:, 2:]), laws[:, 2:])
    tokens = torch.tensor([[1, 0, 1], [0, 0, 1]])
    assert torch.equal(ring.at(positions + 3, tokens), laws.gather(2, tokens[..., None])[..., 0])
    assert torch.equal(
        ring.at(positions + 3, tokens[..., None].expand(-1, -1, 2))[..., 1], ring.at(positions + 3, tokens)
    )


def test_statistics_count_passes_per_image():
    state = DecodingState.empty(ImageTokenLayout(2, 2, codebook_size=3), batch_size=2, margin=2)
    state.accepted_at[:, :4] = torch.tensor([[0, 0, 2, 2], [0, 1, 2, 3]], dtype=torch.int32)
    state.counts = [4, 4]
    statistics = DecodingStatistics.from_state(state, "S", "exact", [1, 2], {})
    assert statistics.forward_passes == [3, 4]
    assert statistics.committed_per_pass == [[2, 0, 2], [1, 1, 1, 1]]
    assert statistics.acceptance_map.tolist() == [[[0, 0], [2, 2]], [[0, 1], [2, 3]]]
    assert not statistics.interrupted
