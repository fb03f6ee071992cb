"""Holds every solver of flows to its label: its pictures beside those of sequential sampling, on a random flow."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from ..declaration import settings_of
from ..flows import (
    FLOW_SOLVERS,
    MODES,
    FlowSolver,
    PlannedFlowSolver,
    SequentialFlowSolver,
    convergence_metrics,
    invert,
)
from ..flows.planned import entry_of
from ..flows.trials import worst_error
from ..pipelines import TarFlowPipeline
from .toy_flow import toy_flow_pipeline

PICTURES = 8
LOOSE = 1e-3  # a tolerance of solvers that have one, beside their default
WINDOW = 8
ROUNDINGS = 2.0  # an exact solver ends within so many times what sequential sampling itself moves by
LEAST = 2e-6  # that much is rounding in any case


@dataclass
class FlowVerdict:
    """How far one solver ends from sequential sampling.

    Attributes:
        scheduler: its registered name.
        settings: those that differ from the defaults, as a plan has them.
        label: `exact` or `approximate`.
        error: of the worst picture, relative (root mean square).
        rounding: how far sequential sampling itself moves when pictures are drawn one by one.
        limit: of the error of an exact solver.
        passes: serial passes for all pictures in one batch.
        sequential_passes: likewise, of sequential sampling.
        passed: an exact solver stays under the limit, a plan under the error that it was measured with, twice; an
            approximate one claims nothing.
    """

    scheduler: str
    settings: str
    label: str
    error: float
    rounding: float
    limit: float
    passes: int
    sequential_passes: int
    passed: bool


def verify_flows(names: list[str] | None = None, seed: int = 0) -> list[dict]:
    """Measure the solvers called `names` (default all): a dict per solver and settings, as in `FlowVerdict`."""
    pipe = toy_flow_pipeline(seed=seed, sample_size=16, num_blocks=3)
    pipe.set_progress_bar_config(disable=True)
    return [asdict(verdict) for verdict in FlowVerifier(pipe).verdicts(names or list(FLOW_SOLVERS))]


class FlowVerifier:
    """Sequential pictures in one batch and one by one.

    Args:
        pipe: the flow.
        pictures: how many; classes come in turn.
        first_seed: of their noise. Plans are calibrated on the noise of small seeds.
    """

    def __init__(self, pipe: TarFlowPipeline, pictures: int = PICTURES, first_seed: int = 10_000):
        self.pipe, self.seeds = pipe, list(range(first_seed, first_seed + pictures))
        self.guidance = pipe.prepare_guidance(None, None, None, None)
        self.labels = [index % pipe.transformer.config.num_classes for index in range(pictures)]
        self.conditions = pipe.target(self.labels, self.guidance).conditions
        self.reference, self.passes = self.draw(SequentialFlowSolver(), range(pictures))
        alone = [self.draw(SequentialFlowSolver(), range(row, row + 1))[0] for row in range(pictures)]
        self.rounding = worst_error(torch.cat(alone), self.reference)

    @torch.no_grad()
    def draw(self, solver: FlowSolver, rows: range) -> tuple[torch.Tensor, int]:
        """Patches `[B, T, D]` of these pictures, and the passes they took."""
        target = self.pipe.target([self.labels[row] for row in rows], self.guidance)
        run = invert(target, solver, self.pipe.prepare_latents([self.seeds[row] for row in rows]))
        return run.sample, run.passes

    def verdicts(self, names: list[str]) -> Iterator[FlowVerdict]:
        limit = max(LEAST, ROUNDINGS * self.rounding)
        for solver in (solver for name in names for solver in self.variants(FLOW_SOLVERS[name])):
            sample, passes = self.draw(solver, range(len(self.seeds)))
            error, measured = worst_error(sample, self.reference), solver.error_at(self.conditions)
            held = limit if solver.label == "exact" else measured and 2 * measured
            yield FlowVerdict(
                scheduler=FLOW_SOLVERS.name_of(type(solver)),
                settings=entry_of(solver).partition(" ")[2],
                label=solver.label,
                error=error,
                rounding=self.rounding,
                limit=limit,
                passes=passes,
                sequential_passes=self.passes,
                passed=held is None or error <= held,
            )

    def variants(self, cls: type[FlowSolver]) -> Iterator[FlowSolver]:
        """A solver with its defaults, and with what else is worth a look."""
        if cls is PlannedFlowSolver:
            for mode in MODES:
                yield self.pipe.calibrate(mode=mode, objective="passes", batch_size=len(self.seeds)).solver
            return
        known = settings_of(cls)
        fixed = {"strategy": self.strategy()} if "strategy" in known else {}
        yield cls(**fixed)
        if "tolerance" in known and not fixed:
            yield cls(tolerance=LOOSE)
        if "window" in known:
            yield cls(window=WINDOW)

    @torch.no_grad()
    def strategy(self) -> str:
        """What CRM chooses."""
        model = self.pipe.transformer
        return convergence_metrics(model, model.unpatchify(self.reference)).strategy(model.num_tokens)
