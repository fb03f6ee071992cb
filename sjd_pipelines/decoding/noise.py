"""Position-addressed random numbers: a function of (seed, token position, purpose, draw), never of call order.

A counter-based hash in integer tensor arithmetic. The integers, and so the uniform numbers, have the same bits on
every device; an image therefore does not change with batch size, window, device or its neighbours in the batch.
"""

from enum import IntEnum

import torch

_MASK32 = 0xFFFFFFFF
# Multipliers of the 32-bit finaliser "lowbias32" (Wellons 2018, https://nullprogram.com/blog/2018/07/31/).
_MULTIPLIER_A = 0x7FEB352D
_MULTIPLIER_B = 0x846CA68B
_GOLDEN = 0x9E3779B9


class Purpose(IntEnum):
    """Independent streams, so that e.g. the acceptance test of a position never reuses its sampling noise."""

    SAMPLE = 1
    ACCEPT = 2
    RESIDUAL = 3
    INITIALISE = 4


class PositionNoise:
    """Random numbers for a batch of images, addressed by token position.

    Args:
        seeds: one integer in [0, 2**64) per image.
        device: where the numbers are wanted.
        num_positions: if given, no position beyond it is asked for; the keys of draw 0 are then made once.
    """

    def __init__(self, seeds: list[int], device: torch.device | str = "cpu", num_positions: int | None = None):
        self.seeds = list(seeds)
        self.device = torch.device(device)
        words = [[seed & _MASK32, (seed >> 32) & _MASK32] for seed in self.seeds]
        low, high = torch.tensor(words, dtype=torch.int64).unbind(-1)
        # [B, 2]: the two words of the seed, each mixed with both, so that nearby seeds share nothing.
        self._row_keys = torch.stack([_mix(_mix(low) ^ high), _mix(_mix(high + _GOLDEN) ^ low)], -1).to(self.device)
        self._token_counters: dict[int, torch.Tensor] = {}
        self._num_positions = num_positions
        self._table: torch.Tensor | None = None  # [2, B, L]: keys of all positions
        self._first_draw: dict[Purpose, torch.Tensor] = {}  # [2, B, L]: the same within a stream, at draw 0
        if num_positions is not None:
            self._table = self._position_keys(torch.arange(num_positions, device=self.device).expand(len(seeds), -1))

    def uniform(self, positions: torch.Tensor, purpose: Purpose, draw: int = 0) -> torch.Tensor:
        """One number per slot.

        Args:
            positions: `[B, Q]` int64 raster indices.
            purpose: the stream.
            draw: distinguishes repeated draws at one position, for instance the index of the pass.

        Returns:
            `[B, Q]` float32 in [0, 1).
        """
        _, second = self._slot_keys(positions, purpose, draw)
        return (second >> 8).to(torch.float32) * 2.0**-24

    def exponential(
        self, positions: torch.Tensor, purpose: Purpose, codebook_size: int, draw: int = 0
    ) -> torch.Tensor:
        """One standard exponential number per slot and codebook entry.

        `argmax(p / exponential)` draws from `p`: the exponential form of the Gumbel-max trick
        (`-log(exponential)` is Gumbel noise), without a logarithm of `p`.

        Args:
            positions: `[B, Q]` int64 raster indices.
            purpose: the stream.
            codebook_size: V.
            draw: as in `uniform`.

        Returns:
            `[B, Q, V]` float32, > 0.
        """
        first, second = (_as_int32(key)[..., None] for key in self._slot_keys(positions, purpose, draw))
        bits = self._counters(codebook_size) ^ first  # [B, Q, V] int32
        # int32 wraps around on every device; arithmetic shifts are made logical by masking the sign bits away.
        bits.bitwise_xor_(bits.bitwise_right_shift(16).bitwise_and_(0xFFFF))
        bits.mul_(_MULTIPLIER_A).add_(second)
        bits.bitwise_xor_(bits.bitwise_right_shift(15).bitwise_and_(0x1FFFF))
        bits.mul_(_MULTIPLIER_B - 2**32)
        bits.bitwise_xor_(bits.bitwise_right_shift(16).bitwise_and_(0xFFFF))
        # (bits + 2^31 + 1/2) / 2^32 in (0, 1). float64 keeps all 32 bits, and its logarithm rounds to the same
        # float32 whichever library computes it.
        uniform = bits.to(torch.float64).add_(2147483648.5).mul_(2.0**-32)
        return uniform.neg_().log1p_().neg_().to(torch.float32)

    def gumbel(self, positions: torch.Tensor, purpose: Purpose, codebook_size: int, draw: int = 0) -> torch.Tensor:
        """Standard Gumbel numbers, `-log` of `exponential` of the same address: `[B, Q, V]` float32."""
        return self.exponential(positions, purpose, codebook_size, draw).log().neg_()

    def _slot_keys(self, positions: torch.Tensor, purpose: Purpose, draw: int) -> torch.Tensor:
        """Two 32-bit keys per slot, as int64 `[2, B, Q]`."""
        if self._table is None:
            return self._stream_keys(self._position_keys(positions), purpose, draw)
        index = positions.expand(2, -1, -1)
        if draw:
            return self._stream_keys(self._table.gather(2, index), purpose, draw)
        if purpose not in self._first_draw:
            self._first_draw[purpose] = self._stream_keys(self._table, purpose, 0)
        return self._first_draw[purpose].gather(2, index)

    def _position_keys(self, positions: torch.Tensor) -> torch.Tensor:
        """Position and seed, mixed: `[B, Q]` -> `[2, B, Q]`."""
        return _mix(_mix(positions * _GOLDEN) ^ self._row_keys.T[:, :, None])

    def _stream_keys(self, keys: torch.Tensor, purpose: Purpose, draw: int) -> torch.Tensor:
        """Keys of a position to keys of one stream and draw there."""
        stream = int(purpose) * 0x85EBCA6B + draw * 0xC2B2AE35 & _MASK32
        return _mix(keys ^ stream)

    def _counters(self, codebook_size: int) -> torch.Tensor:
        counters = self._token_counters.get(codebook_size)
        if counters is None:
            tokens = torch.arange(codebook_size, dtype=torch.int64, device=self.device)
            counters = self._token_counters[codebook_size] = _as_int32(tokens * _GOLDEN & _MASK32)
        return counters


def _mix(words: torch.Tensor) -> torch.Tensor:
    """lowbias32 on int64 tensors that hold 32-bit words; 63-bit products never overflow."""
    words = words & _MASK32
    words = ((words ^ (words >> 16)) * _MULTIPLIER_A) & _MASK32
    # The second multiplier has 32 bits: split it, so that the product stays below 2^63.
    words = words ^ (words >> 15)
    high = (words * (_MULTIPLIER_B >> 16) & 0xFFFF) << 16
    words = (high + words * (_MULTIPLIER_B & 0xFFFF)) & _MASK32
    return words ^ (words >> 16)


def _as_int32(words: torch.Tensor) -> torch.Tensor:
    """The same 32 bits as a signed integer."""
    return (words - ((words >> 31) << 32)).to(torch.int32)
