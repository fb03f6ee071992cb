"""Blocks side by side: fitted to a flow, and as candidates of calibration."""

from itertools import pairwise

import torch

from .base import EXACT_TOLERANCE, replace_wild
from .correction import AffineGuess, CorrectionFit, LinearCorrection
from .loop import invert
from .overlapping import OverlappingFlowSolver
from .sequential import SequentialFlowSolver
from .target import FlowTarget
from .trials import Calibrator, Trial, worst_error

FITTED = 48  # pictures that a solver is fitted on: means of a few say more of their noise than of the flow
FIRST_FITTED = 2**20  # number of their noise, which nothing is measured on
# When the next block begins, to try: early costs work, and saves passes.
OVERLAPS = {"passes": (0.1, 0.3, 0.03), "seconds": (0.0, 0.03)}
FOLLOWED = 2  # of them whose tolerances are tried: the cheapest at one tolerance need not be so at another
LOOSENESS = (3, 1.5, 0.8, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01)  # tolerances to try, in units of the bound
# Share of the allowed error from which no smaller tolerance is tried, and beyond whose inverse no larger one: the
# error of the worst picture does not grow evenly, and where one tolerance fails the next may hold.
NEAR = 0.4
SOLVED = 1e-3  # error at which a block is all but solved
SHARE = 0.5  # of the passes up to there, from which corrections are fitted: later changes are of another kind

Candidate = tuple[OverlappingFlowSolver, Trial]


@torch.no_grad()
def fitted_solver(target: FlowTarget, latents: torch.Tensor) -> OverlappingFlowSolver:
    """Corrections and guesses fitted to a flow, with the classes and guidance of `target`, on noise `[B, T, D]`.

    Raises:
        FlowOverflowError: the flow cannot be inverted.
    """
    run = invert(target, SequentialFlowSolver(), latents)
    corrections, guesses, before = [], [], latents
    for index, block in enumerate(reversed(range(target.num_blocks))):
        ordered, solution = target.order(block, before), run.outputs[index]
        guess = AffineGuess.fitted(ordered, solution)
        guesses.append(guess.text())
        corrections.append(_correction(target, block, ordered, solution, guess(ordered)).text())
        before = target.order(block, solution)
    return OverlappingFlowSolver(corrections=corrections, guesses=guesses)


def _correction(
    target: FlowTarget, block: int, latents: torch.Tensor, solution: torch.Tensor, iterate: torch.Tensor
) -> LinearCorrection:
    """Of one block, from plain Jacobi passes that begin with an iterate; all `[B, T, D]` in the block's order."""
    target.begin(block)
    iterates = [torch.cat([latents[:, :1], iterate[:, 1:]], 1)]
    while len(iterates) < target.num_tokens and not worst_error(iterates[-1], solution) < SOLVED:
        log_scale, shift = target.affine(iterates[-1][:, :-1], 0)
        proposal = torch.addcmul(shift, latents[:, 1:], log_scale.exp())
        iterates.append(torch.cat([latents[:, :1], replace_wild(proposal, iterates[-1][:, 1:])], 1))
    fit, count = CorrectionFit(latents.shape[2]), max(1, round(SHARE * (len(iterates) - 1)))
    for before, after in pairwise(iterates[: count + 1]):
        fit.add(after - before, solution - after)
    return fit.solved()


def side_by_side_trials(
    calibrator: Calibrator, fitted: OverlappingFlowSolver, bound: float, allowed: float, exact: bool, objective: str
) -> list[Candidate]:
    """Solvers of the whole flow: every overlap at one tolerance, then the best two at others until the error is near.

    Args:
        calibrator: references.
        fitted: see `fitted_solver`.
        bound: of the error.
        allowed: error on the references.
        exact: exact solvers alone.
        objective: what is to be saved.
    """

    def candidate(tolerance: float, overlap: float, base: OverlappingFlowSolver = fitted) -> Candidate:
        solver = OverlappingFlowSolver.from_config(base.config, tolerance=tolerance, overlap=overlap, measured=None)
        return solver, calibrator.flow_trial(solver)

    # Smaller tolerances than the exact one lie below the rounding of float32: more passes, and no less error.
    tolerances = [EXACT_TOLERANCE] if exact else [float(f"{bound * factor:.1g}") for factor in LOOSENESS]
    middle, overlaps = len(tolerances) // 2, OVERLAPS[objective]
    found = [candidate(tolerances[middle], overlap) for overlap in overlaps]
    found.append(candidate(tolerances[middle], overlaps[0], OverlappingFlowSolver()))
    for best, trial in sorted(found, key=lambda pair: pair[1].cost(objective))[:FOLLOWED]:
        step = -1 if trial.error <= allowed else 1
        for tolerance in tolerances[middle + 1 :] if step > 0 else reversed(tolerances[:middle]):
            found.append(candidate(tolerance, best.config.overlap, best))
            error = found[-1][1].error
            if error > allowed / NEAR if step < 0 else error <= NEAR * allowed:
                break
    return found
