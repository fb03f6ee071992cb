"""The best strategy of Gauss-Seidel-Jacobi in the published style, found by trying, for others to be held against.

The published strategies were found by hand. Here the difficult block, its segments and all counts are searched for
with the same references, and the same margin, that `calibrate` has.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ..flows import MODES, FlowRun, GaussSeidelJacobiFlowSolver, JacobiFlowSolver
from ..flows.calibration import MARGIN, TIGHTEN
from ..flows.loop import solve_block
from ..flows.trials import Calibrator, Trial, worst_error

SEGMENTS = (1, 2, 4, 8, 16, 32)  # of the dominant block
PASSES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128)  # over a segment
STRATEGY_BOUNDS = MODES | {"exact": 2e-6}  # errors under which strategies are searched for
TRIED = 12  # strategies that the whole flow is solved with


@dataclass(frozen=True)
class _Cut:
    """A block that is cut: segments, passes over each, and the error that leaves."""

    segments: int
    passes: int
    error: float


class StrategySearch:
    """Errors of every block by count of passes, measured once for all bounds.

    Args:
        calibrator: references, in one batch.
        fresh_of: as many others, by the number of the attempt.
    """

    def __init__(self, calibrator: Calibrator, fresh_of: Callable[[int], Calibrator]):
        self.calibrator, self.fresh_of = calibrator, fresh_of
        blocks = range(calibrator.num_blocks)
        curves = [[self._curve(block, start) for start in ("latents", "zeros")] for block in blocks]
        # The start that is better at the end of the curve: 0 for the latents, 1 for zeros.
        self.starts = [int(_area(zeros) < _area(latents)) for latents, zeros in curves]
        self.curves = [pair[start] for pair, start in zip(curves, self.starts)]
        self.dominant = max(blocks, key=lambda block: _area(self.curves[block]))
        self.cuts = list(self._cuts())

    def best(self, bound: float) -> Trial:
        """The strategy of fewest passes whose error over the whole flow stays under a bound on fresh noise."""
        aim, trial = MARGIN * bound, None
        for attempt in range(TRIED):
            solver = self._solver(aim * TIGHTEN**attempt)
            trial = self.fresh_of(attempt % 2).flow_trial(solver)
            if trial.error <= bound:
                break
        return trial

    def _solver(self, aim: float) -> GaussSeidelJacobiFlowSolver:
        """What each block needs by itself."""
        easy = [curve for block, curve in enumerate(self.curves) if block != self.dominant]
        others = max(_first_below(curve, aim) for curve in easy)
        good = [cut for cut in self.cuts if cut.error <= aim]
        last = self.calibrator.batches[0][0].num_tokens - 1
        cut = min(good, key=lambda cut: cut.segments * cut.passes) if good else _Cut(1, last, 0.0)
        return GaussSeidelJacobiFlowSolver(
            strategy=f"{self.dominant}-{cut.segments}-{cut.passes}-{others}",
            starts="/".join(str(start) for start in reversed(self.starts)),
        )

    def _curve(self, block: int, start: str) -> list[float]:
        """Error of a block after each Jacobi pass, until it is within rounding."""
        target, ordered, reference = self._problem(block)
        errors: list[float] = []

        def on_pass(run: FlowRun) -> bool:
            errors.append(worst_error(run.state.current(), reference))
            return errors[-1] < 1e-6

        solver = JacobiFlowSolver(tolerance=0, start=start)
        solve_block(target, solver, block, ordered, on_pass)
        return errors

    def _cuts(self) -> Iterator[_Cut]:
        """The dominant block in segments, with more and more passes over each."""
        target, ordered, reference = self._problem(self.dominant)
        starts = "/".join(str(start) for start in reversed(self.starts))
        for segments in SEGMENTS:
            if target.num_tokens % segments:
                continue
            for passes in PASSES:
                if passes > target.num_tokens // segments:
                    break
                strategy = f"{self.dominant}-{segments}-{passes}-1"
                solver = GaussSeidelJacobiFlowSolver(strategy=strategy, starts=starts, tolerance=0)
                run = solve_block(target, solver, self.dominant, ordered)
                yield _Cut(segments, passes, worst_error(run.state.result, reference))
                if worst_error(run.state.result, reference) < 1e-6:
                    break

    def _problem(self, block: int) -> tuple:
        """Target, latents in the order of the block, and its solution."""
        (target, latents), reference = self.calibrator.batches[0], self.calibrator.runs[0]
        return (target, *self.calibrator.entering(block, target, latents, reference))


def _area(errors: list[float]) -> float:
    """Passes until a curve is down, and a little of how far it is on the way."""
    return len(errors) + float(torch.tensor(errors).clamp(max=1).mean())


def _first_below(errors: list[float], aim: float) -> int:
    """Passes after which a curve stays under `aim`; all of them if it never does."""
    above = [index for index, error in enumerate(errors) if not error <= aim]
    return min(above[-1] + 2, len(errors)) if above else 1
