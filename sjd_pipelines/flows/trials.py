"""Solvers tried on blocks and whole flows: error, passes and seconds against sequential sampling."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .base import FlowSolver
from .clock import seconds_of
from .loop import FlowRun, invert, solve_block
from .planned import entry_of
from .sequential import SequentialFlowSolver
from .target import FlowTarget

ALONE = 16  # pictures of a larger batch that are drawn alone: what one rounds to says little of the others

TargetOf = Callable[[int], FlowTarget]  # called with the index of a batch


@dataclass(frozen=True)
class Trial:
    """One solver on one block, or on the whole flow.

    Attributes:
        entry: the solver, as a plan has it.
        error: against sequential sampling, the worst picture's, relative (root mean square).
        passes: serial passes per batch, the mean.
        token_passes: per picture, the mean.
        seconds: per batch, the mean.
    """

    entry: str
    error: float
    passes: float
    token_passes: float
    seconds: float

    def cost(self, objective: str) -> tuple[float, float]:
        """What is to be least, and what decides between equals."""
        return (self.passes, self.token_passes) if objective == "passes" else (self.seconds, self.passes)


class Calibrator:
    """References on the device, and what it takes to measure candidates against them.

    Args:
        target_of: makes the target of a batch, by its index; classes may differ from batch to batch.
        noise: `[N, T, D]` latents in raster order, N a multiple of `batch_size`.
        batch_size: B.
        repeats: timings of a candidate, of which the shortest counts.
    """

    def __init__(self, target_of: TargetOf, noise: torch.Tensor, batch_size: int, repeats: int):
        self.repeats = repeats
        self.batches = [(target_of(index), batch) for index, batch in enumerate(noise.split(batch_size))]
        self.runs = [invert(target, SequentialFlowSolver(), latents) for target, latents in self.batches]
        self.num_blocks, self.batch_size = self.batches[0][0].num_blocks, batch_size

    def block_trial(self, block: int, solver: FlowSolver) -> Trial:
        """Solve one block from what sequential sampling gave it."""
        measured = []
        for (target, latents), reference in zip(self.batches, self.runs):
            ordered, solution = self.entering(block, target, latents, reference)

            def attempt(target: FlowTarget = target, ordered: torch.Tensor = ordered) -> FlowRun:
                return solve_block(target, solver, block, ordered)

            run, seconds = self._timed(attempt, ordered.device)
            error = worst_error(run.state.result, solution)
            measured.append((error, run.state.passes, run.state.token_passes, seconds))
        return self._trial(solver, measured)

    def entering(
        self, block: int, target: FlowTarget, latents: torch.Tensor, reference: FlowRun
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What sequential sampling gave to a block, and made of it: two `[B, T, D]` in the block's order."""
        index = self.num_blocks - 1 - block
        before = latents if index == 0 else target.order(block + 1, reference.outputs[index - 1])
        return target.order(block, before), reference.outputs[index]

    def flow_trial(self, solver: FlowSolver) -> Trial:
        """Solve the whole flow."""
        measured = []
        for (target, latents), reference in zip(self.batches, self.runs):
            run, seconds = self._timed(
                lambda target=target, latents=latents: invert(target, solver, latents), latents.device
            )
            tokens = sum(block.token_passes for block in run.blocks)
            measured.append((worst_error(run.sample, reference.sample), run.passes, tokens, seconds))
        return self._trial(solver, measured)

    def flow_error(self, solver: FlowSolver) -> float:
        """The worst error of the whole flow."""
        return max(
            worst_error(invert(target, solver, latents).sample, reference.sample)
            for (target, latents), reference in zip(self.batches, self.runs)
        )

    def rounding(self) -> float:
        """How far sequential sampling moves when pictures are drawn in batches of another size, at most."""
        return max(self._rounding(*batch, run.sample) for batch, run in zip(self.batches, self.runs))

    def _rounding(self, target: FlowTarget, latents: torch.Tensor, reference: torch.Tensor) -> float:
        """Of one batch: alone a picture is drawn four times; of a larger batch quarters, and its first pictures each
        alone, which other kernels may compute.
        """
        rows = torch.arange(len(latents), device=latents.device)
        groups = [rows.repeat(4)] if len(rows) == 1 else [*rows[:ALONE].split(1), *rows.split(-(-len(rows) // 4))]
        errors = []
        for group in groups:
            labels = None if target.labels is None else target.labels[group]
            other = FlowTarget(target.model, labels, len(group), target.guidance)
            run = invert(other, SequentialFlowSolver(), latents[group])
            errors.append(worst_error(run.sample, reference[group]))
        return max(errors)

    def _timed(self, attempt: Callable[[], FlowRun], device: torch.device) -> tuple[FlowRun, float]:
        """A run and the seconds of its fastest repetition."""
        runs: list[FlowRun] = []
        seconds = [seconds_of(lambda: runs.append(attempt()), device) for _ in range(self.repeats)]
        return runs[-1], min(seconds)

    def _trial(self, solver: FlowSolver, measured: list[tuple[float, int, int, float]]) -> Trial:
        errors, passes, tokens, seconds = zip(*measured)
        count = len(measured)
        return Trial(
            entry_of(solver),
            max(errors),
            sum(passes) / count,
            sum(tokens) / (count * self.batch_size),
            sum(seconds) / count,
        )


def worst_error(sample: torch.Tensor, reference: torch.Tensor) -> float:
    """Root mean square of the difference over that of the reference, of the worst picture: `[B, T, D]` each."""
    difference = (sample - reference).double().square().mean((1, 2))
    return float((difference / reference.double().square().mean((1, 2))).sqrt().max())
