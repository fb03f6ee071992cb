"""The cheapest solver of every block under an error bound, found by running the candidates on the device."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from ..ranges import shown
from .base import EXACT_TOLERANCE, STARTS, FlowSolver
from .frontier import FrontierFlowSolver
from .gauss_seidel import GaussSeidelJacobiFlowSolver
from .metrics import ConvergenceMetrics, convergence_metrics
from .overlapping import OverlappingFlowSolver
from .planned import PlannedFlowSolver, text_of
from .sequential import SequentialFlowSolver
from .side_by_side import side_by_side_trials
from .trials import Calibrator, TargetOf, Trial

MODES = {"exact": EXACT_TOLERANCE, "safe": 1e-3, "fast": 1e-2}  # largest error against sequential sampling
OBJECTIVES = ("passes", "seconds")
# An exact solver rounds, sequential sampling rounds, and what it rounds to in another batch differs as much from
# picture to picture: times the largest difference seen within which another exact result may lie.
ROUNDINGS = 4
FRESH = 3  # times as many pictures verify a plan as it was made with: errors of single pictures differ by as much
MARGIN = 0.7  # share of the bound that a plan may use up on the noise it is tried on
TIGHTEN = 0.7  # factor of the allowed error after a plan has failed
ATTEMPTS = 8
REPEATS = {"passes": 1, "seconds": 2}  # timings of a candidate, of which the shortest counts
WINDOW_SHARES = (2, 4, 8)  # of a block's inputs, as windows to try
LOOSENESS = (30, 10, 3, 1, 0.3, 0.1, 0.03)  # tolerances tried, in units of the bound


@dataclass
class Calibration:
    """What `calibrate` has found.

    Attributes:
        solver: the cheapest that holds: a plan, or `OverlappingFlowSolver` over the whole flow.
        trials: of every block, in the order of sampling.
        chosen: the trial behind each entry of the best plan.
        whole: trials of blocks side by side, on the whole flow.
        sequential: the whole flow, sequentially.
        planned: the whole flow by the solver, on fresh noise.
        published: the whole flow by what CRM and IGM choose, on the same noise.
        metrics: CRM and IGM.
        bound: of the error.
    """

    solver: FlowSolver
    trials: list[list[Trial]]
    chosen: list[Trial]
    whole: list[Trial]
    sequential: Trial
    planned: Trial
    published: Trial
    metrics: ConvergenceMetrics
    bound: float

    def __str__(self) -> str:
        """A table: what each block got, beside what CRM and IGM say of it."""
        head = f"{'block':>5} {'CRM %':>6} {'IGM latents':>11} {'IGM zeros':>9}  {'passes':>6}  {'error':>7}  solver"
        lines = [head]
        for index, trial in enumerate(self.chosen):
            block = len(self.chosen) - 1 - index
            igm = self.metrics.igm[block]
            lines.append(
                f"{block:>5} {self.metrics.crm[block]:>6.1f} {igm['latents']:>11.3g} {igm['zeros']:>9.3g}  "
                f"{trial.passes:>6.1f}  {trial.error:>7.1e}  {trial.entry}"
            )
        for name, trial in (
            ("sequential", self.sequential),
            ("this plan" if isinstance(self.solver, PlannedFlowSolver) else self.planned.entry, self.planned),
            (self.published.entry, self.published),
        ):
            lines.append(
                f"{name}: {trial.passes:.1f} passes, {trial.token_passes:.0f} token-passes, {trial.seconds:.3f} s, "
                f"error {trial.error:.1e}"
            )
        return "\n".join(lines)


@torch.no_grad()
def calibrate(
    target_of: TargetOf,
    noise_of: Callable[[int, int], torch.Tensor],
    fit: Callable[[], OverlappingFlowSolver],
    mode: str = "safe",
    objective: str = "seconds",
    batch_size: int = 1,
    references: int = 8,
    on_block: Callable[[int, list[Trial]], None] | None = None,
) -> Calibration:
    """Measure candidates, on every block and over the whole flow, and take the cheapest that holds on fresh noise.

    Of every block the cheapest solver under the bound makes a plan; what fails on fresh noise is made again with less
    error allowed and tried on other noise. Sequential blocks, which have no error, are always among the candidates.
    Blocks side by side, fitted to the flow, are held against the plan in the same manner.

    Args:
        target_of: makes the target of a batch of `batch_size`, by its index.
        noise_of: `(first, count)` to latents `[count, T, D]` that no other numbers give.
        fit: makes blocks side by side for this flow and guidance, see `fitted_solver`.
        mode: `exact`, `safe` or `fast`, the bounds of `MODES`. `exact` takes exact solvers alone, and its bound
            follows from sequential sampling's own rounding where that is larger.
        objective: what a plan saves, `seconds` on this device or serial `passes`.
        batch_size: pictures that are drawn at once; a plan is made for it.
        references: pictures to measure on, rounded up to whole batches; three times as many fresh ones verify.
        on_block: called with a block, counted from the picture, and its trials.

    Raises:
        ValueError: an unknown mode or objective.
        FlowOverflowError: the flow cannot be inverted.
    """
    if mode not in list(MODES):
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {shown(mode)}.")
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {shown(objective)}.")
    references = -(-references // batch_size) * batch_size
    calibrator = Calibrator(target_of, noise_of(0, references), batch_size, REPEATS[objective])
    bound, allowed = MODES[mode], MARGIN * MODES[mode]
    if mode == "exact":  # the plan rounds, and so does what it is compared with
        bound = allowed = max(MODES[mode], ROUNDINGS * calibrator.rounding())
    trials = []
    for block in reversed(range(calibrator.num_blocks)):
        trials.append(block_trials(calibrator, block, bound, mode, objective))
        if on_block is not None:
            on_block(block, trials[-1])

    @cache
    def fresh_of(attempt: int) -> Calibrator:
        noise = noise_of(references * (1 + FRESH * attempt), FRESH * references)
        return Calibrator(target_of, noise, batch_size, REPEATS[objective])

    chosen, fresh, planned = _verified_plan(calibrator, trials, fresh_of, allowed, objective)
    solver: FlowSolver = _solver(chosen)
    side_by_side = side_by_side_trials(calibrator, fit(), bound, allowed, mode == "exact", objective)
    found = _verified(side_by_side, fresh_of, allowed, objective)
    if found is not None and found[1].cost(objective) < planned.cost(objective):
        solver, planned = found
    sequential = fresh.flow_trial(SequentialFlowSolver())
    if sequential.cost(objective) <= planned.cost(objective):  # a saving of single blocks that the whole does not show
        chosen, planned = [block[0] for block in trials], sequential
        solver = _solver(chosen)
    metrics = _metrics(calibrator)
    measured = {
        "plan": text_of(solver),
        "mode": mode,
        "objective": objective,
        "error": planned.error,
        "passes": planned.passes,
        "batch_size": batch_size,
        "conditions": calibrator.batches[0][0].conditions,
    }
    solver = type(solver).from_config(solver.config, measured=measured)
    published = _published_trial(fresh, metrics)
    whole = [trial for _, trial in side_by_side]
    return Calibration(solver, trials, chosen, whole, sequential, planned, published, metrics, bound)


def block_trials(calibrator: Calibrator, block: int, bound: float, mode: str, objective: str) -> list[Trial]:
    """Sequential first, then the frontier with several tolerances and windows from the better start.

    All stop by residual. A fixed number of passes is no candidate: it fails unnoticed where a picture needs more.
    """
    # Smaller tolerances than the exact one lie below the rounding of float32: more passes, and no less error.
    tolerances = [EXACT_TOLERANCE] if mode == "exact" else [float(f"{bound * factor:.1g}") for factor in LOOSENESS]
    last = calibrator.batches[0][0].num_tokens - 1

    def frontier(tolerance: float, window: int | None, start: str) -> Trial:
        solver = FrontierFlowSolver(tolerance=tolerance, window=window, start=start)
        return calibrator.block_trial(block, solver)

    trials = [calibrator.block_trial(block, SequentialFlowSolver())]
    pair = {start: frontier(tolerances[-1], None, start) for start in STARTS}
    better = min(pair, key=lambda start: pair[start].cost("passes"))
    whole = [*(frontier(tolerance, None, better) for tolerance in tolerances[:-1]), pair[better]]
    trials += [*pair.values(), *whole[:-1]]
    middle = len(tolerances) // 2
    for window in (last // part for part in WINDOW_SHARES if last // part) if objective == "seconds" else ():
        # A window takes more passes of less work each. What it is worth hardly depends on the tolerance.
        trials.append(frontier(tolerances[middle], window, better))
        if trials[-1].seconds < whole[middle].seconds:
            rest = [tolerance for index, tolerance in enumerate(tolerances) if index != middle]
            trials += [frontier(tolerance, window, better) for tolerance in rest]
    return trials


def _verified(
    trials: list[tuple[FlowSolver, Trial]], fresh_of: Callable[[int], Calibrator], allowed: float, objective: str
) -> tuple[FlowSolver, Trial] | None:
    """The cheapest solver of the whole flow that holds on noise it has not seen, with its trial there; or None."""
    for attempt in range(ATTEMPTS):
        good = [pair for pair in trials if pair[1].error <= allowed * TIGHTEN**attempt]
        if not good:
            return None
        solver, _ = min(good, key=lambda pair: pair[1].cost(objective))
        fresh = fresh_of(attempt).flow_trial(solver)
        if fresh.error <= allowed:
            return solver, fresh
    return None


def _verified_plan(
    calibrator: Calibrator,
    trials: list[list[Trial]],
    fresh_of: Callable[[int], Calibrator],
    allowed: float,
    objective: str,
) -> tuple[list[Trial], Calibrator, Trial]:
    """The trials of the first plan that holds on noise it has not seen, that noise, and the plan's own trial."""
    for attempt in range(ATTEMPTS + 1):
        # The last attempt is nothing but sequential blocks, which have no error.
        aim = allowed * TIGHTEN**attempt if attempt < ATTEMPTS else 0.0
        chosen = _loosened(calibrator, trials, aim, objective)
        fresh = fresh_of(attempt)
        planned = fresh.flow_trial(_solver(chosen))
        if planned.error <= allowed:
            break
    return chosen, fresh, planned


def _loosened(calibrator: Calibrator, trials: list[list[Trial]], allowed: float, objective: str) -> list[Trial]:
    """The cheapest plan found whose error over the whole flow is allowed.

    How much the error of a block matters depends on the blocks after it. So every block starts with its share of the
    error, and then the one that saves most is given its next cheaper solver for as long as the whole flow allows it.
    """
    share = allowed / len(trials)
    chosen = [min((t for t in block if t.error <= share), key=lambda t: t.cost(objective)) for block in trials]
    closed = set()
    while len(closed) < len(trials):
        cheaper = {}
        for index, (block, present) in enumerate(zip(trials, chosen)):
            better = [t for t in block if t.cost(objective) < present.cost(objective)]
            if index not in closed and better:
                cheaper[index] = min(better, key=lambda t: t.error)
            else:
                closed.add(index)
        if not cheaper:
            break
        index = max(cheaper, key=lambda i: chosen[i].cost(objective)[0] - cheaper[i].cost(objective)[0])
        attempt = [*chosen[:index], cheaper[index], *chosen[index + 1 :]]
        if calibrator.flow_error(_solver(attempt)) <= allowed:
            chosen = attempt
        else:
            closed.add(index)
    return chosen


def _solver(trials: list[Trial]) -> PlannedFlowSolver:
    return PlannedFlowSolver(plan="; ".join(trial.entry for trial in trials))


def _metrics(calibrator: Calibrator) -> ConvergenceMetrics:
    """CRM and IGM over the references' own pictures, with no class, as in the paper."""
    model = calibrator.batches[0][0].model
    pixels = torch.cat([model.unpatchify(run.sample) for run in calibrator.runs])
    return convergence_metrics(model, pixels)


def _published_trial(calibrator: Calibrator, metrics: ConvergenceMetrics) -> Trial:
    """The whole flow by what CRM and IGM choose."""
    strategy = metrics.strategy(calibrator.batches[0][0].num_tokens)
    return calibrator.flow_trial(GaussSeidelJacobiFlowSolver(strategy=strategy, starts=metrics.starts()))
