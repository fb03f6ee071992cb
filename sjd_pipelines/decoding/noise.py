"""Position-addressed random numbers: a function of (seed, token position, purpose, draw), never of call order.

A counter-based hash in integer tensor arithmetic. The integers, and so the uniform numbers, have the same bits on
every device; an image therefore does not change with batch size, window, device or its neighbours in the batch.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch

from .look import recorded
from .ring import PositionRing

DRAWS = 16  # draws of a stream whose keys are made at once, at least
SPARE = 16  # positions whose shared noise is made before it is needed


def _signed(word: int) -> int:
    """The low 32 bits of an integer as a signed one: words are int32 tensors, which wrap around on every device."""
    word &= 0xFFFFFFFF
    return word - (word >> 31 << 32)


def _word(word: int) -> torch.Tensor:
    """A constant, which every device takes from the host. Made once: to make it costs as much as a short operation."""
    return torch.tensor(_signed(word), dtype=torch.int32, device="cpu")


@dataclass(frozen=True)
class _Constants:
    """Multipliers of the finaliser, arithmetic shifts, and the masks that make logical ones of them."""

    multiplier_a: int | torch.Tensor
    multiplier_b: int | torch.Tensor
    shift_8: int | torch.Tensor
    shift_15: int | torch.Tensor
    shift_16: int | torch.Tensor
    low_24: int | torch.Tensor
    low_17: int | torch.Tensor
    low_16: int | torch.Tensor


# Multipliers of the 32-bit finaliser "lowbias32" (Wellons 2018, https://nullprogram.com/blog/2018/07/31/).
_NUMBERS = (_signed(0x7FEB352D), _signed(0x846CA68B), 8, 15, 16, 0xFFFFFF, 0x1FFFF, 0xFFFF)
_AS_NUMBERS, _AS_TENSORS = _Constants(*_NUMBERS), _Constants(*map(_word, _NUMBERS))
_GOLDEN = _signed(0x9E3779B9)
_STREAM = _signed(0x85EBCA6B)
_DRAW = _signed(0xC2B2AE35)


Draw = int | torch.Tensor


class Purpose(IntEnum):
    """Independent streams, so that e.g. the acceptance test of a position never reuses its sampling noise."""

    SAMPLE = 1
    ACCEPT = 2
    RESIDUAL = 3
    INITIALISE = 4


@dataclass
class _Block:
    """K draws of a stream at all positions: keys `[K, 2, B, L]` and uniform numbers `[K, B, L]`."""

    first: int
    keys: torch.Tensor
    uniforms: torch.Tensor


class PositionNoise:
    """Random numbers for a batch of images, addressed by token position.

    Args:
        seeds: one integer in [0, 2**64) per image.
        device: where the numbers are wanted.
        num_positions: if given, no position beyond it is asked for; keys are then made for all of them and for
            several draws at once.
    """

    def __init__(self, seeds: list[int], device: torch.device | str = "cpu", num_positions: int | None = None):
        self.seeds = list(seeds)
        self.device = torch.device(device)
        words = [[_signed(seed), _signed(seed >> 32)] for seed in self.seeds]
        low, high = torch.tensor(words, dtype=torch.int32).unbind(-1)
        # [2, B, 1]: the two words of the seed, each mixed with both, so that nearby seeds share nothing.
        keys = [_mix(_mix(low.clone()) ^ high), _mix(_mix(high + _GOLDEN) ^ low)]
        self._row_keys = torch.stack(keys)[..., None].to(self.device)
        self._token_counters: dict[int, torch.Tensor] = {}
        self._table: torch.Tensor | None = None  # [2, B, L]: keys of all positions
        self._blocks: dict[Purpose, _Block] = {}
        if num_positions is not None:
            self._table = self._position_keys(torch.arange(num_positions, device=self.device).expand(len(seeds), -1))

    def uniform(self, positions: torch.Tensor, purpose: Purpose, draw: Draw = 0) -> torch.Tensor:
        """One number per slot.

        Args:
            positions: `[B, Q]` int64 raster indices.
            purpose: the stream.
            draw: distinguishes repeated draws at one position, for instance the index of the pass; a number, or one on
                the device, `[]` int64.

        Returns:
            `[B, Q]` float32 in [0, 1).
        """
        return self.uniforms(positions, purpose, draw, 1)[..., 0]

    def uniforms(self, positions: torch.Tensor, purpose: Purpose, draw: Draw, count: int) -> torch.Tensor:
        """`uniform` of draws `draw` to `draw + count - 1`: `[B, Q, count]`."""
        if self._table is None or isinstance(draw, torch.Tensor):
            return _uniform(self._keys(positions, purpose, draw, count)[1])
        block = self._block(purpose, draw, count)
        numbers = block.uniforms[draw - block.first :][:count]  # [count, B, L]
        return numbers.gather(2, positions.expand(count, -1, -1)).movedim(0, -1)

    def exponential(
        self, positions: torch.Tensor, purpose: Purpose, codebook_size: int, draw: Draw = 0
    ) -> torch.Tensor:
        """One standard exponential number per slot and codebook entry.

        `argmax(p / exponential)` draws from `p`: the exponential form of the Gumbel-max trick
        (`-log(exponential)` is Gumbel noise), without a logarithm of `p`.

        Args:
            positions: `[B, Q]` int64 raster indices.
            purpose: the stream.
            codebook_size: V.
            draw: one, as in `uniform`.

        Returns:
            `[B, Q, V]` float32, > 0.
        """
        first, second = self._slot_keys(positions, purpose, draw)[..., None]  # [B, Q, 1] each
        bits = _mix(self._counters(codebook_size) ^ first, second)  # [B, Q, V] int32
        # u = (bits + 2^31 + 1/2) / 2^32 in (0, 1), here -u. float64 keeps all 32 bits, and its logarithm rounds to the
        # same float32 whichever library computes it.
        uniform = bits.to(torch.float64).add_(2147483648.5).mul_(-(2.0**-32))
        return uniform.log1p_().to(torch.float32).neg_()

    def gumbel(self, positions: torch.Tensor, purpose: Purpose, codebook_size: int, draw: Draw = 0) -> torch.Tensor:
        """Standard Gumbel numbers, `-log` of `exponential` of the same address: `[B, Q, V]` float32."""
        return self.exponential(positions, purpose, codebook_size, draw).log().neg_()

    def _slot_keys(self, positions: torch.Tensor, purpose: Purpose, draw: Draw) -> torch.Tensor:
        """Two keys per slot, as int32 `[2, B, Q]`, which the caller may overwrite."""
        if self._table is None or isinstance(draw, torch.Tensor):
            return self._keys(positions, purpose, draw, 1)[..., 0]
        block = self._block(purpose, draw, 1)
        return block.keys[draw - block.first].gather(2, positions.expand(2, -1, -1))

    def _keys(self, positions: torch.Tensor, purpose: Purpose, draw: Draw, count: int) -> torch.Tensor:
        """Keys of draws `draw` to `draw + count - 1` at these positions alone: `[B, Q]` -> `[2, B, Q, count]`."""
        draws = torch.arange(count, device=self.device) + draw
        if self._table is None:
            return self._stream_keys(self._position_keys(positions), purpose, draws)
        return self._stream_keys(self._table.gather(2, positions.expand(2, -1, -1)), purpose, draws)

    def _block(self, purpose: Purpose, draw: int, count: int) -> "_Block":
        """Draws of a stream, `draw` to `draw + count - 1` among them."""
        block = self._blocks.get(purpose)
        if block is None or not block.first <= draw <= block.first + len(block.keys) - count:
            draws = torch.arange(draw, draw + max(count, DRAWS), device=self.device)
            keys = self._stream_keys(self._table, purpose, draws).movedim(-1, 0).contiguous()  # [K, 2, B, L]
            block = self._blocks[purpose] = _Block(draw, keys, _uniform(keys[:, 1]))
        return block

    def _position_keys(self, positions: torch.Tensor) -> torch.Tensor:
        """Position and seed, mixed: `[B, Q]` -> `[2, B, Q]`."""
        return _mix(_mix(positions.to(torch.int32) * _GOLDEN) ^ self._row_keys)

    def _stream_keys(self, keys: torch.Tensor, purpose: Purpose, draws: torch.Tensor) -> torch.Tensor:
        """Keys of a position to keys of some draws `[K]` of one stream there: `[2, B, L]` -> `[2, B, L, K]`."""
        return _mix(keys[..., None] ^ (draws.to(torch.int32) * _DRAW + _signed(purpose * _STREAM)))

    def _counters(self, codebook_size: int) -> torch.Tensor:
        counters = self._token_counters.get(codebook_size)
        if counters is None:
            tokens = torch.arange(codebook_size, dtype=torch.int32, device=self.device)
            counters = self._token_counters[codebook_size] = tokens * _GOLDEN
        return counters


class SharedNoise:
    """The noise that stays with a position, made once for each that the window reaches.

    Args:
        noise: the source.
        reach: positions from the last committed token on that may be asked for.
        vocabulary_size: V.
        last_position: there is nothing after it.
    """

    def __init__(self, noise: PositionNoise, reach: int, vocabulary_size: int, last_position: int):
        batch_size = len(noise.seeds)
        self.noise, self.vocabulary_size, self.last_position = noise, vocabulary_size, last_position
        self.ring = PositionRing(batch_size, reach + SPARE, vocabulary_size, noise.device)
        self.ends = [0] * batch_size  # up to here (exclusive) each row has its noise (host)

    def extend(self, reach: int, committed: torch.Tensor, counts: list[int]) -> None:
        """Have the noise of the next `reach` positions after those committed, `[B]` and the same on the host."""
        if all(count + reach <= known for count, known in zip(counts, self.ends)):
            return
        # All rows get as many: those that have advanced less get some of theirs again.
        reach += SPARE
        fresh = max(count + reach - known for count, known in zip(counts, self.ends))
        self.ends = [max(count + reach, known) for count, known in zip(counts, self.ends)]
        positions = committed[:, None] + torch.arange(reach - fresh, reach, device=committed.device)  # [B, F]
        positions = positions.clamp(0, self.last_position)
        self.ring.write(positions, self.noise.exponential(positions, Purpose.SAMPLE, self.vocabulary_size))

    def read(self, positions: torch.Tensor) -> torch.Tensor:
        """`[B, Q]` -> `[B, Q, V]` float32."""
        return self.ring.read(positions)


def _uniform(words: torch.Tensor) -> torch.Tensor:
    """int32 words to float32 in [0, 1)."""
    known = _constants()
    return words.bitwise_right_shift(known.shift_8).bitwise_and_(known.low_24).to(torch.float32).mul_(2.0**-24)


def _mix(words: torch.Tensor, key: torch.Tensor | None = None) -> torch.Tensor:
    """lowbias32 on int32 words, in place, with a second key in the middle: the state of a word is 64 bits."""
    known = _constants()
    words.bitwise_xor_(words.bitwise_right_shift(known.shift_16).bitwise_and_(known.low_16))
    words.mul_(known.multiplier_a)
    if key is not None:
        words.add_(key)
    words.bitwise_xor_(words.bitwise_right_shift(known.shift_15).bitwise_and_(known.low_17))
    words.mul_(known.multiplier_b)
    return words.bitwise_xor_(words.bitwise_right_shift(known.shift_16).bitwise_and_(known.low_16))


def _constants() -> _Constants:
    """As tensors, which cost less; as numbers in what is recorded, where tensors of the host are in the way."""
    return _AS_NUMBERS if recorded() else _AS_TENSORS
