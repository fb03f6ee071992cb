"""One block of a flow while it is solved, and what a whole run has cost."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from .correction import LinearCorrection

# What a network says of the same tokens differs a little with the shape of the pass. A change of no more than so many
# times the precision of numbers (3e-5 in float32) may be that: it falls below no tolerance that is smaller. What
# converges halves from pass to pass and more, so that after some such changes nothing is left but rounding.
ROUNDING = 256
RESTED = 3  # such changes in a row after which a token has converged
SETTLED = 4  # and after which its keys and values, which are a pass older, may be left as they are


class FlowOverflowError(ArithmeticError, ValueError):
    """The exact picture itself is not finite: no solver can draw it."""


@dataclass
class BlockState:
    """A batch of fixed-point problems `x_t = z_t exp(s_t(x_<t)) + u_t(x_<t)`, in the order of their block.

    B pictures, of which A are not solved yet.

    Attributes:
        latents: `[A, T, D]`, z.
        sample: `[A, T, D]`, the iterate.
        rows: `[A]` int64: which pictures they are.
        numbers: `rows` on the host.
        result: `[B, T, D]`, filled as pictures are solved.
        start: first input of the next pass.
        stop: after its last; the pass computes tokens `start + 1` to `stop`.
        scale: `[A, 1]`, what changes are measured in: the root mean square of the picture's latents.
        resting: `[A, T]` int32, for how many passes each token has changed by no more than rounding may (host).
        fronts: `[A]`: this token and those before it are settled (host).
        iteration: passes over the present window.
        limit: at most so many of them, for a solver that counts.
        length: inputs of a segment, for a solver that has segments.
        remaining: `[A']`, which of the rows before the last step are still there; None if all are.
        open: pictures whose latents may still change, because the block that they come from is not solved (host).
        moved: pictures that moved in the last step, by more than a block beside this one may overlook (host).
        moving: root mean square of the last change over all tokens of a picture, the largest of any, in units of
            `scale` (host); None where a solver does not look.
        correction: what changes foretell, of a solver that has it.
        done: whether every picture is solved.
        passes: serial passes so far.
        token_passes: tokens computed so far, over all pictures.
        solved: `[B]` settled tokens of each picture (host).
        row_passes: `[B]` passes until each picture was solved (host).
        residual: `[B]` largest change in the last pass of each picture, in units of `scale` (host); None where a
            solver does not look.
    """

    latents: torch.Tensor
    sample: torch.Tensor
    rows: torch.Tensor
    numbers: list[int]
    result: torch.Tensor
    start: int
    stop: int
    scale: torch.Tensor
    resting: np.ndarray
    fronts: list[int]
    iteration: int = 0
    limit: int = 0
    length: int = 0
    remaining: torch.Tensor | None = None
    open: set[int] = field(default_factory=set)
    moved: set[int] = field(default_factory=set)
    moving: float | None = None
    correction: LinearCorrection | None = None
    done: bool = False
    passes: int = 0
    token_passes: int = 0
    solved: list[int] = field(default_factory=list)
    row_passes: list[int] = field(default_factory=list)
    residual: list[float | None] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return self.latents.shape[1]

    @property
    def inputs(self) -> torch.Tensor:
        """`[A, stop - start, D]`: what the next pass reads."""
        return self.sample[:, self.start : self.stop]

    def current(self) -> torch.Tensor:
        """All pictures as they are now, solved or not: a copy, `[B, T, D]`."""
        sample = self.result.clone()
        sample[self.rows] = self.sample
        return sample

    @property
    def pending(self) -> set[int]:
        """Pictures that are not solved."""
        return set() if self.done else set(self.numbers)

    @property
    def unsettled(self) -> set[int]:
        """Pictures that were not solved before the last pass, and moved in it.

        One may end although it moves: by what may be rounding, or when its last token is computed from settled ones.
        """
        return self.pending | self.moved

    def receive(self, latents: torch.Tensor) -> None:
        """Go on with other latents `[B, T, D]` of all pictures, z."""
        self.latents = latents[self.rows]
        self.scale = root_mean_square(self.latents)
        self.sample[:, 0] = self.latents[:, 0]

    def release(self, pending: set[int]) -> None:
        """Let pictures settle whose latents change no more, all but the `pending` ones."""
        settled = [number in self.open and number not in pending for number in self.numbers]
        if any(settled):  # what has rested so far has rested on other latents
            self.resting[settled] = 0
        self.open = pending

    def proposal(self, log_scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Tokens `start + 1` to `stop` as the pass says they are, `[A, Q, D]`; counts the pass."""
        self.passes += 1
        self.token_passes += shift.shape[0] * shift.shape[1]
        return torch.addcmul(shift, self.latents[:, self.start + 1 : self.stop + 1], log_scale.exp())

    def change(self, proposal: torch.Tensor, before: torch.Tensor) -> np.ndarray:
        """How far each token has moved, its root mean square in units of `scale`: `[A, Q]`; not finite on overflow.

        The one look of a pass: what follows from it is little, and decided on the host.
        """
        unit = self.scale * math.sqrt(proposal.shape[-1])
        return (torch.linalg.vector_norm(proposal - before, dim=-1) / unit).detach().cpu().numpy()

    def observe(self, change: np.ndarray) -> None:
        """Count the passes in which each token of the window has rested: `[A, Q]` changes."""
        resting = self.resting[:, self.start + 1 : self.stop + 1]
        resting += 1
        resting *= change <= ROUNDING * np.finfo(change.dtype).eps

    def moves(self, change: np.ndarray, tolerance: float, rested: int = RESTED) -> np.ndarray:
        """Which tokens of the window have not converged, after `observe`: `[A, Q]` bool.

        Args:
            change: `[A, Q]`, of this pass; one that is not a number is a move.
            tolerance: a change of no more is none. 0 takes no change for rounding.
            rested: passes that a token must have rested to have converged whatever the tolerance.
        """
        converged = change <= tolerance
        if tolerance:
            converged |= self.resting[:, self.start + 1 : self.stop + 1] >= rested
        return ~converged

    def finish(self, solved: list[bool]) -> None:
        """Take out the rows that are solved, and end the block with the last of them."""
        gone = [index for index, is_solved in enumerate(solved) if is_solved]
        left = [index for index, is_solved in enumerate(solved) if not is_solved]
        self.remaining, self.done = None, not left
        if not gone:
            return
        for index in gone:
            self.row_passes[self.numbers[index]] = self.passes
            self.solved[self.numbers[index]] = self.num_tokens
        if self.done:
            self.result[self.rows] = self.sample
            return
        self.result[self.rows[gone]] = self.sample[gone]
        self.remaining = torch.tensor(left, device=self.rows.device)
        self.latents, self.sample = self.latents[self.remaining], self.sample[self.remaining]
        self.rows, self.scale = self.rows[self.remaining], self.scale[self.remaining]
        self.resting = self.resting[left]
        self.numbers = [self.numbers[index] for index in left]
        self.fronts = [self.fronts[index] for index in left]


def root_mean_square(latents: torch.Tensor) -> torch.Tensor:
    """What changes are measured in, of each picture: `[B, T, D]` to `[B, 1]`, above 0."""
    return latents.square().mean((1, 2)).sqrt()[:, None].clamp(min=torch.finfo(latents.dtype).tiny)


@dataclass
class BlockStatistics:
    """What one block has cost.

    Attributes:
        block: index, 0 next to the picture.
        solver: name of its solver.
        passes: over this block, until the last picture was solved.
        row_passes: until each was.
        token_passes: tokens computed, guidance rows not counted twice.
        residual: the largest last change of any picture in units of its latents' root mean square; None for a
            solver that does not look.
        solved: whether it came to its end.
    """

    block: int
    solver: str
    passes: int
    row_passes: list[int]
    token_passes: int
    residual: float | None
    solved: bool


@dataclass
class FlowStatistics:
    """What a run has cost.

    Attributes:
        solver: class name.
        label: `exact` (as near to sequential sampling as its own rounding) or `approximate`.
        seeds: the seed of each picture; the same seed draws the same picture again. Empty where latents were given.
        blocks: one entry per block, in the order in which they were solved.
        forward_passes: serial passes, those of blocks that are worked on side by side counted once; sequential
            sampling takes K (T - 1).
        seconds: wall clock of the stages `solve` and `pixels`, for the whole batch.
        error: largest difference from sequential sampling that calibration measured, relative to the root mean
            square of a picture's tokens; None where it has not been measured.
        interrupted: whether the run was stopped before every picture was complete.
    """

    solver: str
    label: str
    seeds: list[int]
    blocks: list[BlockStatistics]
    forward_passes: int
    seconds: dict[str, float]
    error: float | None = None
    interrupted: bool = False

    @property
    def block_passes(self) -> int:
        """Passes over single blocks, side by side or not."""
        return sum(block.passes for block in self.blocks)

    @property
    def token_passes(self) -> int:
        """Tokens computed, over all blocks and pictures."""
        return sum(block.token_passes for block in self.blocks)
