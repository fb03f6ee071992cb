import pytest
import torch

from sjd_pipelines.decoding import PositionNoise, Purpose, SharedNoise
from sjd_pipelines.decoding.noise import _mix

MASK = 0xFFFFFFFF


def reference_mix(word: int) -> int:
    """lowbias32 in unbounded integers."""
    word ^= word >> 16
    word = word * 0x7FEB352D & MASK
    word ^= word >> 15
    word = word * 0x846CA68B & MASK
    return word ^ word >> 16


def reference_exponential_bits(first: int, second: int, token: int) -> int:
    word = (token * 0x9E3779B9 ^ first) & MASK
    word ^= word >> 16
    word = (word * 0x7FEB352D + second) & MASK
    word ^= word >> 15
    word = word * 0x846CA68B & MASK
    return word ^ word >> 16


def test_mix_matches_unbounded_integers():
    words = torch.randint(-(2**31), 2**31, (1000,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    expected = [reference_mix(word & MASK) for word in words.tolist()]
    assert [word & MASK for word in _mix(words).tolist()] == expected


@pytest.mark.parametrize("size", [3, 37, 1000])  # vector bodies and their scalar tails
def test_exponential_matches_unbounded_integers(size):
    noise = PositionNoise([2**63 - 5])
    positions = torch.tensor([[0, 255]])
    first, second = noise._slot_keys(positions, Purpose.SAMPLE, 0)
    bits = torch.tensor(
        [
            [reference_exponential_bits(a, b, token) for token in range(size)]
            for a, b in zip(first[0].tolist(), second[0].tolist())
        ]
    )
    signed = bits - ((bits >> 31) << 32)
    expected = -torch.log1p(-(signed.double() + 2147483648.5) * 2.0**-32)
    assert torch.equal(noise.exponential(positions, Purpose.SAMPLE, size)[0], expected.float())


def test_numbers_depend_on_their_address_alone():
    seeds, positions = [7, 8, 2**64 - 1], torch.arange(20).expand(3, -1)
    batch = PositionNoise(seeds)
    whole = batch.exponential(positions, Purpose.SAMPLE, 50, draw=4)
    for row, seed in enumerate(seeds):
        for position in (0, 13):
            single = PositionNoise([seed]).exponential(torch.tensor([[position]]), Purpose.SAMPLE, 50, draw=4)
            assert torch.equal(single[0, 0], whole[row, position])
    assert torch.equal(
        batch.uniform(positions, Purpose.ACCEPT)[:, 5:9], batch.uniform(positions[:, 5:9], Purpose.ACCEPT)
    )


def test_a_longer_codebook_extends_the_same_numbers():
    noise, positions = PositionNoise([3]), torch.arange(4)[None]
    short = noise.exponential(positions, Purpose.SAMPLE, 10)
    assert torch.equal(noise.exponential(positions, Purpose.SAMPLE, 99)[..., :10], short)


def test_streams_draws_positions_and_seeds_are_independent():
    def numbers(seed=0, purpose=Purpose.SAMPLE, draw=0, start=0):
        positions = torch.arange(start, start + 2000)[None]
        return PositionNoise([seed]).exponential(positions, purpose, 16, draw).flatten()

    base = numbers()
    others = [
        numbers(seed=1),
        numbers(seed=2**32),
        numbers(purpose=Purpose.RESIDUAL),
        numbers(draw=1),
        numbers(start=1),
    ]
    others.append(base.roll(1))
    for other in others:
        correlation = torch.corrcoef(torch.stack([base, other]))[0, 1].abs()
        assert correlation < 0.02  # 32,000 pairs: standard deviation 0.0056


def test_distributions():
    noise, positions = PositionNoise([1, 2]), torch.arange(50_000).expand(2, -1)
    uniform = noise.uniform(positions, Purpose.ACCEPT)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    counts = (uniform * 100).long().flatten().bincount(minlength=100).double()
    assert ((counts - 1000) ** 2 / 1000).sum() < 160  # chi-square, 99 degrees of freedom: p = 1e-4
    exponential = noise.exponential(positions[:, :5000], Purpose.SAMPLE, 8)
    assert (exponential > 0).all()
    assert exponential.mean().item() == pytest.approx(1, abs=0.02)
    assert exponential.var().item() == pytest.approx(1, abs=0.05)
    gumbel = noise.gumbel(positions[:, :5000], Purpose.SAMPLE, 8)
    assert gumbel.mean().item() == pytest.approx(0.5772, abs=0.02)
    first = exponential.argmin(-1).flatten().bincount(minlength=8).double()
    assert ((first - 1250) ** 2 / 1250).sum() < 31  # 7 degrees of freedom: p = 6e-5


def test_keys_made_in_advance_are_the_same():
    positions = torch.tensor([[5, 0, 9], [1, 1, 8]])
    plain, advance = PositionNoise([3, 4]), PositionNoise([3, 4], num_positions=10)
    for purpose in (Purpose.SAMPLE, Purpose.ACCEPT):
        for draw in (0, 2, 15, 16, 40, 3):
            assert torch.equal(
                plain.exponential(positions, purpose, 7, draw), advance.exponential(positions, purpose, 7, draw)
            )


@pytest.mark.parametrize("num_positions", [None, 10])
def test_several_draws_at_once_are_the_same(num_positions):
    noise, positions = PositionNoise([3, 4], num_positions=num_positions), torch.tensor([[5, 0, 9], [1, 1, 8]])
    for first, count in ((0, 3), (14, 5), (1000, 40)):
        several = noise.uniforms(positions, Purpose.ACCEPT, first, count)
        assert several.shape == (2, 3, count)
        for index in range(count):
            assert torch.equal(several[..., index], noise.uniform(positions, Purpose.ACCEPT, first + index))


def test_shared_noise_is_that_of_the_position_however_rows_advance():
    reach, positions = 6, torch.arange(6)
    noise = PositionNoise([3, 4], num_positions=120)
    shared = SharedNoise(noise, reach, vocabulary_size=5, last_position=119)
    counts = [0, 0]
    for gains in [(1, 6), (6, 1), (2, 2), *[(5, 1)] * 12, *[(0, 6)] * 10]:
        for window in (reach, 2, reach):  # a window may shrink and grow again
            shared.extend(window, torch.tensor(counts), counts)
            asked = torch.tensor(counts)[:, None] + positions[:window]
            assert torch.equal(shared.read(asked), noise.exponential(asked, Purpose.SAMPLE, 5))
        counts = [count + gain for count, gain in zip(counts, gains)]


def test_global_random_state_is_untouched():
    before = torch.get_rng_state()
    PositionNoise([1]).exponential(torch.zeros(1, 1, dtype=torch.int64), Purpose.SAMPLE, 4)
    assert torch.equal(torch.get_rng_state(), before)
