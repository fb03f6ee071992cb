"""Solvers of a flow, side by side: passes, seconds, how far each ends from sequential sampling, what a judge sees.

Every solver draws the same classes from the same noise, in batches of several sizes, with and without guidance.
Sequential sampling of the same batch, with a preallocated cache, is what all are measured against. Plans are
calibrated, and strategies searched for, on other noise than that they are measured on. Runs take turns in an order
that rotates; a speed-up is the median of ratios of runs of the same batch in the same round.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import torch

from ..emoji.flow_judge import read_pictures
from ..emoji.flow_world import SIDE
from ..emoji.glyphs import OBJECTS
from ..flows import (
    FLOW_SOLVERS,
    MODES,
    OBJECTIVES,
    FlowRun,
    FlowSolver,
    FlowTarget,
    FrontierFlowSolver,
    JacobiFlowSolver,
    OverlappingFlowSolver,
    SequentialFlowSolver,
    invert,
)
from ..flows.clock import seconds_of
from ..flows.planned import solver_of_entry, text_of
from ..flows.trials import Calibrator, worst_error
from ..pipelines import TarFlowPipeline
from .flow_strategies import STRATEGY_BOUNDS, StrategySearch
from .journal import Journal
from .machine import pipeline_facts
from .speed import Spread

FIRST_SEED = 10_000  # of measured pictures; calibration takes its own from 0 on
OTHER_BATCH = 4  # pictures at once, to see how far sequential sampling of one moves
WIDE = 16  # pictures in float64
REFERENCES = 8  # pictures that plans are calibrated on, and strategies searched with


@dataclass(frozen=True)
class FlowConfig:
    """What is measured.

    Attributes:
        model: what to call it.
        solvers: that are measured besides sequential sampling; None is the line-up, plans and strategies included.
        pictures: of each solver, classes in turn.
        timed: how many of them are drawn again to be timed.
        repeats: how often.
        batch_sizes: pictures at once.
        guidance_scales: strengths of guidance.
        seed: of the noise.
    """

    model: str
    solvers: tuple[FlowSolver, ...] | None = None
    pictures: int = 16
    timed: int = 16
    repeats: int = 3
    batch_sizes: tuple[int, ...] = (1, 16)
    guidance_scales: tuple[float, ...] = (0.0,)
    seed: int = 0


@dataclass(frozen=True)
class FlowContender:
    """One row of a table: a solver, and what it was chosen for."""

    solver: FlowSolver
    chosen: str = ""

    @property
    def key(self) -> str:
        return f"{self.chosen} {self.entry}".strip()

    @property
    def entry(self) -> str:
        """Name and settings, as a plan has them."""
        return text_of(self.solver)


@dataclass(frozen=True)
class FlowResult:
    """What one contender did in one cell of batch size and guidance.

    Attributes:
        name: as registered.
        chosen: what for, where calibration or a search chose it: `safe, seconds`.
        entry: its settings, as a plan has them.
        label: `exact` or `approximate`.
        passes: serial passes per batch, those of blocks side by side counted once.
        block_passes: passes over single blocks, per batch.
        token_passes: patches computed per picture, guidance rows not counted twice.
        seconds: per picture, noise to patches.
        speedup: sequential seconds / these, paired.
        error: against sequential sampling of the same batch, the worst picture's, relative.
        psnr: of the finished pictures, dB: the worst and the mean; None where all are equal.
        object: share of pictures that show their class; None where nobody can tell.
        same: share that the judge reads as the sequential ones; None likewise.
        samples: seconds per picture of every timed batch.
    """

    name: str
    chosen: str
    entry: str
    label: str
    passes: float
    block_passes: float
    token_passes: float
    seconds: Spread
    speedup: Spread
    error: float
    psnr: dict[str, float] | None
    object: float | None
    same: float | None
    samples: list[float]


def measure_flow(
    pipe: TarFlowPipeline,
    config: FlowConfig,
    progress: Callable[[str, int, int], None] | None = None,
    journal: Journal | None = None,
) -> dict[str, Any]:
    """Measure every cell of batch size and guidance.

    Args:
        pipe: its progress bar should be off.
        config: what to measure.
        progress: called as `progress(stage, done, total)`.
        journal: keeps every run; default in memory.

    Returns:
        JSON: `kind` (`flow`), `facts`, `method`, and `cells`, each with `batch_size`, `guidance_scale`, `calibrations`
        and `results` as in `FlowResult`.

    Raises:
        ValueError: the journal is of another benchmark, or a solver does not fit the flow.
        FlowOverflowError: the flow leaves the range of numbers.
    """
    model = pipe.transformer
    for solver in config.solvers or ():
        solver.check(len(model.blocks), model.num_tokens)
    facts = {"model": config.model} | pipeline_facts(pipe)
    own = ("pictures", "timed", "repeats", "batch_sizes", "guidance_scales", "seed")
    method = {name: getattr(config, name) for name in own} | {"sampling": pipe.sampling_defaults()}
    given = [FlowContender(solver).key for solver in config.solvers or ()]
    journal = journal or Journal()
    journal.begin({"facts": facts, "method": method, "contenders": {"given": given}})
    cells = [
        FlowCell(pipe, config, size, scale, journal, progress or (lambda stage, done, total: None)).measure()
        for size in config.batch_sizes
        for scale in config.guidance_scales
    ]
    return {"kind": "flow", "facts": facts, "method": method, "cells": cells}


@dataclass(frozen=True)
class _Reference:
    """A batch by sequential sampling: patches `[B, T, D]`, finished pictures, and what the judge reads in them."""

    sample: torch.Tensor
    pixels: torch.Tensor
    glyphs: torch.Tensor | None


class FlowCell:
    """One batch size and one guidance."""

    def __init__(
        self,
        pipe: TarFlowPipeline,
        config: FlowConfig,
        batch_size: int,
        guidance_scale: float,
        journal: Journal,
        progress: Callable[[str, int, int], None],
    ):
        self.pipe, self.config, self.batch_size = pipe, config, batch_size
        self.guidance = pipe.prepare_guidance(guidance_scale, None, None, None)
        self.journal, self.progress, self._references = journal, progress, {}
        self.name = f"batch {batch_size} guidance {guidance_scale:g}"
        self.judged = pipe.class_names() == list(OBJECTS) and pipe.transformer.config.sample_size == SIDE

    def measure(self) -> dict[str, Any]:
        contenders, calibrations = self.contenders()
        batches = range(-(-self.config.pictures // self.batch_size))
        timed = range(max(1, self.config.timed // self.batch_size))
        rounds = [list(batches), *[list(timed)] * (self.config.repeats - 1)]
        runs: list[list[dict[str, Any]]] = [[] for _ in contenders]
        total, done = len(contenders) * sum(map(len, rounds)), 0
        for repeat, group in enumerate(rounds):
            for batch in group:
                for turn in range(len(contenders)):
                    index = (turn + repeat + batch) % len(contenders)
                    key = f"{self.name} repeat {repeat} batch {batch} {contenders[index].key}"
                    runs[index].append(self.journal.measure(key, self.run, contenders[index].solver, batch))
                    done += 1
                    self.progress(self.name, done, total)
        rounding = self.journal.measure(f"{self.name} rounding", self.rounding)
        wide = self.journal.measure(f"{self.name} float64", self.wide)
        results = [self.result(one, row, runs[0]) for one, row in zip(contenders, runs)]
        return {
            "batch_size": self.batch_size,
            "guidance_scale": self.guidance.scale,
            "pictures": max(self.config.pictures, self.batch_size),
            "calibrations": calibrations,
            "rounding": rounding,
            "wide": wide,
            "results": [asdict(result) for result in results],
        }

    def contenders(self) -> tuple[list[FlowContender], dict[str, Any]]:
        """Sequential sampling first; and what calibration found."""
        first = FlowContender(SequentialFlowSolver())
        if self.config.solvers is not None:
            others = [FlowContender(one) for one in self.config.solvers if not isinstance(one, SequentialFlowSolver)]
            return [first, *others], {}
        contenders, calibrations = [first, FlowContender(JacobiFlowSolver())], {}
        contenders += [FlowContender(FrontierFlowSolver(tolerance=tolerance)) for tolerance in MODES.values()]
        strategies = self.journal.measure(f"{self.name} strategies", self.strategies)
        contenders += [FlowContender(solver_of_entry(entry), chosen) for chosen, entry in strategies.items()]
        for objective in OBJECTIVES:
            for mode in MODES:
                self.progress(f"{self.name} calibration {mode}, {objective}", 0, 1)
                chosen = f"{mode}, {objective}"
                found = self.journal.measure(f"{self.name} {chosen}", self.calibration, mode, objective)
                calibrations[chosen] = {name: value for name, value in found.items() if name != "settings"}
                solver = FLOW_SOLVERS[found["solver"]](**found["settings"])
                contenders.append(FlowContender(solver, chosen))
        by_rule = solver_of_entry(next(iter(calibrations.values()))["published"])
        return [*contenders, FlowContender(by_rule, "CRM and IGM")], calibrations

    def calibration(self, mode: str, objective: str) -> dict[str, Any]:
        fitted = self.journal.measure(f"guidance {self.guidance.scale:g} fit", self.fitted)
        found = self.pipe.calibrate(
            mode=mode,
            objective=objective,
            batch_size=self.batch_size,
            references=REFERENCES,
            guidance_scale=self.guidance.scale,
            fitted=OverlappingFlowSolver(**fitted),
        )
        solver = found.solver
        settings = {name: value for name, value in solver.config.items() if not name.startswith("_")}
        made = {"bound": found.bound, "solver": solver.name, "settings": settings | {"measured": None}}
        metrics = {"crm": found.metrics.crm, "igm": found.metrics.igm, "published": found.published.entry}
        return dict(solver.config.measured) | made | metrics

    def fitted(self) -> dict[str, Any]:
        """Settings of the solver that calibrations with this guidance share."""
        solver = self.pipe.fit(self.guidance.scale)
        return {name: solver.config[name] for name in ("corrections", "guesses")}

    def strategies(self) -> dict[str, str]:
        """The best strategies in the published style that a search finds, by what they were searched for."""
        self.progress(f"{self.name} strategies", 0, 1)

        def calibrator(attempt: int) -> Calibrator:
            noise = self.pipe.prepare_latents([REFERENCES * attempt + row for row in range(REFERENCES)])
            return Calibrator(lambda index: self.target(range(REFERENCES)), noise, REFERENCES, repeats=1)

        with torch.no_grad():
            search = StrategySearch(calibrator(0), lambda attempt: calibrator(1 + attempt))
            found = {f"searched, {mode}": search.best(bound).entry for mode, bound in STRATEGY_BOUNDS.items()}
        return found

    @torch.no_grad()
    def rounding(self) -> float:
        """How far sequential sampling itself moves, at most, when the same pictures are drawn in other batches."""
        worst = 0.0
        for batch in range(-(-self.config.pictures // self.batch_size)):
            sample = self.reference(batch).sample
            for row, index in enumerate(self.of_batch(batch)):
                count = OTHER_BATCH if self.batch_size == 1 else 1
                target = self.pipe.target([self.label(index)] * count, self.guidance)
                latents = self.pipe.prepare_latents([self.config.seed + FIRST_SEED + index] * count)
                other = invert(target, SequentialFlowSolver(), latents).sample[:1]
                worst = max(worst, worst_error(other, sample[row : row + 1]))
        return worst

    @torch.no_grad()
    def wide(self) -> dict[str, float]:
        """Passes and worst error of the exact frontier solver in float64, where rounding hides nothing."""
        pipe = TarFlowPipeline(deepcopy(self.pipe.transformer), FrontierFlowSolver())
        torch.nn.Module.to(pipe.transformer, torch.float64)
        passes, errors = [], []
        for batch in range(-(-min(self.config.pictures, WIDE) // self.batch_size)):
            pictures = self.of_batch(batch)
            latents = pipe.prepare_latents([self.config.seed + FIRST_SEED + index for index in pictures])
            runs = [
                invert(pipe.target([self.label(index) for index in pictures], self.guidance), solver, latents)
                for solver in (SequentialFlowSolver(), FrontierFlowSolver())
            ]
            errors.append(worst_error(runs[1].sample, runs[0].sample))
            passes.append([run.passes for run in runs])
        sequential, frontier = (mean(column) for column in zip(*passes))
        return {"sequential_passes": sequential, "passes": frontier, "error": max(errors)}

    @torch.no_grad()
    def run(self, solver: FlowSolver, batch: int) -> dict[str, Any]:
        """One timed batch as JSON."""
        pictures = self.of_batch(batch)
        target, runs = self.target(pictures), []
        latents = self.pipe.prepare_latents([self.config.seed + FIRST_SEED + index for index in pictures])
        seconds = seconds_of(lambda: runs.append(invert(target, solver, latents)), self.pipe.device)
        run: FlowRun = runs[0]
        sequential, drawn = self.reference(batch), self.finished(run.sample, target)
        difference = (run.sample - sequential.sample).double().square().mean((1, 2))
        errors = (difference / sequential.sample.double().square().mean((1, 2))).sqrt()
        noise = ((drawn - sequential.pixels) / 2).double().square().mean((1, 2, 3))  # of pictures in [0, 1]
        read = read_pictures(drawn / 2 + 0.5).glyphs if self.judged else None
        return {
            "seconds": seconds / len(pictures),
            "passes": run.passes,
            "block_passes": sum(block.passes for block in run.blocks),
            "token_passes": sum(block.token_passes for block in run.blocks) / len(pictures),
            "errors": errors.tolist(),
            "psnr": [None if one == 0 else -10 * float(one.log10()) for one in noise],
            "object": None if read is None else (read == target.labels.cpu()).tolist(),
            "same": None if read is None else (read == sequential.glyphs).tolist(),
        }

    def reference(self, batch: int) -> "_Reference":
        """Sequential sampling of a batch, made once."""
        if batch not in self._references:
            pictures = self.of_batch(batch)
            target = self.target(pictures)
            latents = self.pipe.prepare_latents([self.config.seed + FIRST_SEED + index for index in pictures])
            sample = invert(target, SequentialFlowSolver(), latents).sample
            pixels = self.finished(sample, target)
            glyphs = read_pictures(pixels / 2 + 0.5).glyphs if self.judged else None
            self._references[batch] = _Reference(sample, pixels, glyphs)
        return self._references[batch]

    def finished(self, sample: torch.Tensor, target: FlowTarget) -> torch.Tensor:
        """Patches to pictures, as a call with the model's defaults makes them."""
        return self.pipe.decode_latents(sample, target.labels, self.pipe.sampling_defaults()["denoise_strength"])

    def of_batch(self, batch: int) -> range:
        """Which pictures a batch has."""
        start = batch * self.batch_size
        return range(start, min(start + self.batch_size, max(self.config.pictures, self.batch_size)))

    def target(self, pictures: range) -> FlowTarget:
        """The flow for these pictures, whose classes come in turn."""
        return self.pipe.target([self.label(index) for index in pictures], self.guidance)

    def label(self, index: int) -> int:
        """Class of a picture."""
        classes = self.pipe.transformer.config.num_classes
        return index % classes if classes else -1

    def result(
        self, contender: FlowContender, runs: list[dict[str, Any]], sequential: list[dict[str, Any]]
    ) -> FlowResult:
        whole = runs[: -(-self.config.pictures // self.batch_size)]  # later rounds draw the same pictures

        def of_pictures(name: str) -> list[Any]:
            return [value for run in whole for value in run[name] or ()]

        noises = [value for value in of_pictures("psnr") if value is not None]
        read = of_pictures("object")
        seconds = [run["seconds"] for run in runs]
        return FlowResult(
            name=contender.solver.name,
            chosen=contender.chosen,
            entry=contender.entry,
            label=contender.solver.label,
            passes=mean(run["passes"] for run in whole),
            block_passes=mean(run["block_passes"] for run in whole),
            token_passes=mean(run["token_passes"] for run in whole),
            seconds=Spread.of(seconds),
            speedup=Spread.of([slow["seconds"] / fast for slow, fast in zip(sequential, seconds)]),
            error=max(of_pictures("errors")),
            psnr={"worst": min(noises), "mean": mean(noises)} if noises else None,
            object=mean(read) if read else None,
            same=mean(of_pictures("same")) if read else None,
            samples=seconds,
        )
