"""What is fitted to a flow: a guess to start from, and what the change of a token foretells of those after it.

A Jacobi pass moves every token by what those before it said a pass ago, so that a change travels from patch to patch.
Much of how it travels is alike everywhere in the pictures of a flow: a convolution over the four neighbours that come
before a patch, fitted once, foretells the better part of what a change will bring on, and the pass begins there.

A correction is strictly causal and of the changes alone. What is solved changes no more and is not corrected, so that
the solution of a block is the same, and T - 1 passes are still enough for it.
"""

import base64
import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 0))  # in a kernel of two rows and three columns; the patch itself is (1, 1)
KERNEL = (2, 3)
RIDGE = 1e-3  # in units of the mean diagonal of the normal equations
_WORD = torch.float16  # of the text; the solution does not depend on it
_MOST = torch.finfo(_WORD).max


@dataclass(frozen=True)
class LinearCorrection:
    """The correction of one block.

    Attributes:
        kernel: `[D, D, 2, 3]`, zero but for the neighbours that come before a patch in the order of the block.
    """

    kernel: torch.Tensor

    def __call__(self, change: torch.Tensor, start: int, num_tokens: int) -> torch.Tensor:
        """What changes foretell.

        Args:
            change: `[A, Q, D]`, of tokens `start + 1` to `start + Q`.
            start: how many tokens before them, less one.
            num_tokens: T, a square number.

        Returns:
            `[A, Q, D]`: a further change of the same tokens.
        """
        side, count = math.isqrt(num_tokens), change.shape[1]
        first = (start + 1) // side  # rows of patches in front of it have not changed
        before = start + 1 - first * side
        padded = F.pad(change, (0, 0, before, (side - first) * side - before - count))
        grid = padded.transpose(1, 2).unflatten(2, (side - first, side))
        kernel = self.kernel.to(change)
        moved = F.conv2d(F.pad(grid, (1, 1, 1, 0)), kernel).flatten(2).transpose(1, 2)
        return moved[:, before : before + count]

    @classmethod
    def of_weights(cls, weights: torch.Tensor) -> "LinearCorrection":
        """From `[4 D, D]`: a channel of a neighbour at a time, what it adds to each channel."""
        size = weights.shape[1]
        kernel = weights.new_zeros(size, size, *KERNEL)
        for index, (row, column) in enumerate(NEIGHBOURS):
            kernel[:, :, row, column] = weights.unflatten(0, (size, len(NEIGHBOURS)))[:, index].T
        return cls(kernel)

    @classmethod
    def read(cls, text: str) -> "LinearCorrection":
        """The reverse of `text`. Raises `ValueError` for a text that is none."""
        words = _words(text)
        size = math.isqrt(len(words) // len(NEIGHBOURS))
        return cls.of_weights(words.reshape(len(NEIGHBOURS) * size, size))

    def text(self) -> str:
        """All weights as base64 of half precision numbers."""
        weights = torch.stack([self.kernel[:, :, row, column].T for row, column in NEIGHBOURS], 1)  # [D, 4, D]
        return _text(weights)

    @property
    def size(self) -> tuple[int]:
        """D."""
        return self.kernel.shape[:1]


@dataclass(frozen=True)
class AffineGuess:
    """What a block makes of its latents, roughly: `factor * z + offset`.

    Attributes:
        factor: `[D]`.
        offset: `[T, D]`.
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """`[B, T, D]` likewise."""
        return self.factor.to(latents) * latents + self.offset.to(latents)

    @classmethod
    def fitted(cls, latents: torch.Tensor, solution: torch.Tensor) -> "AffineGuess":
        """Least squares over pictures, `[B, T, D]` each."""
        latents, solution = latents.double().cpu(), solution.double().cpu()
        means = latents.mean(0), solution.mean(0)
        spread = latents - means[0]
        variance = spread.square().mean((0, 1)).clamp(min=torch.finfo(torch.double).tiny)
        factor = (spread * (solution - means[1])).mean((0, 1)) / variance
        return cls(factor.float(), (means[1] - factor * means[0]).float())

    @classmethod
    def read(cls, text: str) -> "AffineGuess":
        """The reverse of `text`. Raises `ValueError` for a text that is none."""
        words = _words(text)
        size = int(words[0])
        factor, offset = words[1:].split([size, len(words) - 1 - size])
        return cls(factor, offset.reshape(-1, size))

    def text(self) -> str:
        """D, the factors and the offsets as base64 of half precision numbers."""
        size = torch.tensor([float(len(self.factor))])
        return _text(torch.cat([size, self.factor, self.offset.flatten()]))

    @property
    def size(self) -> tuple[int, int]:
        """T and D."""
        return tuple(self.offset.shape)


def _words(text: str) -> torch.Tensor:
    words = torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=_WORD).float()
    if not words.isfinite().all():
        raise ValueError("numbers that are not finite")
    return words


def _text(numbers: torch.Tensor) -> str:
    return base64.b64encode(numbers.clamp(-_MOST, _MOST).to(_WORD).numpy().tobytes()).decode()


class CorrectionFit:
    """Least squares over passes, every one weighing the same.

    Args:
        size: D.
    """

    def __init__(self, size: int):
        self.size = size
        count = len(NEIGHBOURS) * size
        self.normal, self.right = torch.zeros(count, count).double(), torch.zeros(count, size).double()

    def add(self, change: torch.Tensor, missing: torch.Tensor) -> None:
        """A pass: what it changed, and what was still missing after it, `[B, T, D]` each."""
        if not (change.isfinite().all() and missing.isfinite().all()):
            return
        change, missing = change.double().cpu(), missing.double().cpu()
        side = math.isqrt(change.shape[1])
        columns = [row * KERNEL[1] + column for row, column in NEIGHBOURS]
        grid = change.transpose(1, 2).unflatten(2, (side, side))
        seen = F.unfold(F.pad(grid, (1, 1, 1, 0)), KERNEL).unflatten(1, (self.size, -1))  # [B, D, 6, T]
        seen = seen[:, :, columns].flatten(1, 2).transpose(1, 2).flatten(0, 1)  # [B T, 4 D]
        weight = 1 / (change + missing).square().mean().clamp(min=torch.finfo(change.dtype).tiny)
        self.normal += weight * seen.T @ seen
        self.right += weight * seen.T @ missing.flatten(0, 1)

    def solved(self) -> LinearCorrection:
        """The correction; none at all where nothing was added."""
        ridge = RIDGE * self.normal.diagonal().mean().clamp(min=torch.finfo(torch.double).tiny)
        weights = torch.linalg.solve(self.normal + ridge * torch.eye(len(self.normal)), self.right)
        return LinearCorrection.of_weights(weights.float())
