import pytest
import torch

from sjd_pipelines.decoding import FREE, DecodingState, DecodingStatistics, ImageTokenLayout, PositionRing


def test_plain_grid():
    layout = ImageTokenLayout(2, 3, codebook_size=8)
    assert (layout.width, layout.num_tokens, layout.vocabulary_size, layout.has_forced) == (3, 6, 8, False)
    positions = torch.arange(6)
    assert layout.row(positions).tolist() == [0, 0, 0, 1, 1, 1]
    assert layout.column(positions).tolist() == [0, 1, 2, 0, 1, 2]


def test_row_ends_and_tail_are_forced():
    layout = ImageTokenLayout(2, 2, codebook_size=8, structural_tokens=3, row_end=8, tail=(9, 10))
    assert layout.forced_tokens().tolist() == [FREE, FREE, 8, FREE, FREE, 8, 9, 10]
    tokens = torch.tensor([[1, 2, 8, 3, 4, 8, 9, 10]])
    assert layout.image_tokens(tokens).tolist() == [[1, 2, 3, 4]]


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
