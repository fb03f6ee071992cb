"""Schedulers against the clock: same weights, prompts and seeds, one process, interleaved.

Every contender draws every batch of prompts in turn, in an order that rotates, so that whatever else the machine does
meets all of them alike. A speed-up is the median of ratios of runs of the same batch in the same round. Time is
measured from the prompt to the last token; pixels, the same work for everyone, are timed once and reported apart.

Every run is saved as it ends, and a benchmark that was interrupted goes on with the next one.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import mean, median
from typing import Any

from ..emoji.judge import rates
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.pictures import render_tokens
from ..schedulers import SCHEDULERS
from ..schedulers.sequential import sequential_scheduler
from .contenders import Contender, labels_at
from .drawing import benchmark_scenes, draw, score_run
from .journal import Journal
from .library import check_library
from .loop_seconds import measure_loop
from .machine import pipeline_facts, wait_for

WARM_UP_PASSES = 3
OVERHEAD_PROMPTS = 4


@dataclass(frozen=True)
class SpeedConfig:
    """What is measured.

    Attributes:
        contenders: what runs against sequential decoding, which is always there.
        model: what to call the model in the report.
        prompts: how many captions of held-out scenes, or classes, one picture each.
        repeats: timed runs of each contender over all prompts.
        batch_size: pictures drawn at once.
        seed: of the first picture, and of the choice of scenes.
        library: run the library's own `generate` as well.
        fidelity: judge the pictures of the first repeat (the bundled checkpoint's world only).
        sampling: `guidance_scale`, `temperature`, `top_k`, `top_p`; the checkpoint decides what is absent.
    """

    contenders: tuple[Contender, ...]
    model: str
    prompts: int = 4
    repeats: int = 3
    batch_size: int = 1
    seed: int = 0
    library: bool = False
    fidelity: bool = False
    sampling: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of a measurement."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class SpeedResult:
    """What one contender did.

    Attributes:
        name: of the contender.
        label: `exact`, `lossless` or `approximate`.
        window: drafts per pass; None for the library.
        settings: config of the scheduler.
        tokens: per picture.
        passes: mean forward passes per picture.
        compression: tokens / passes.
        seconds: per picture, from prompt to tokens.
        speedup: sequential seconds / these seconds, paired.
        library_speedup: library seconds / these seconds, paired; None if the library did not run.
        overhead: share of the decode loop spent outside the transformer; None for the library.
        drafting: the part of it that a network which drafts takes (the draft model's head is the transformer's).
        fidelity: rate of each score of the judge; None if not asked for.
        samples: seconds per picture of every timed batch, repeat by repeat.
    """

    name: str
    label: str
    window: int | str | None
    settings: dict[str, Any]
    tokens: int
    passes: float
    compression: float
    seconds: Spread
    speedup: Spread
    library_speedup: Spread | None
    overhead: float | None
    drafting: float | None
    fidelity: dict[str, float] | None
    samples: list[float]


@dataclass(frozen=True)
class SpeedReport:
    """A whole benchmark.

    Attributes:
        facts: about the machine.
        method: how it was measured.
        skipped: contenders that this pipeline cannot run, and why.
        pixel_seconds: per picture, from tokens to pixels.
        results: one per contender.
    """

    facts: dict[str, Any]
    method: dict[str, Any]
    skipped: dict[str, str]
    pixel_seconds: float
    results: list[SpeedResult]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_speed(
    pipe: SJDAutoRegressivePipeline,
    config: SpeedConfig,
    progress: Callable[[int, int], None] | None = None,
    journal: Journal | None = None,
) -> SpeedReport:
    """Run the benchmark. The pipeline gets its own scheduler back.

    Args:
        pipe: any family; its progress bar should be off.
        config: what to measure.
        progress: called as `progress(done, total)` after each batch.
        journal: keeps every run; default in memory.

    Raises:
        ValueError: the library baseline cannot run with this model or guidance, or the journal is of another
            benchmark.
    """
    sampling = pipe.sampling_defaults() | config.sampling
    skipped = {contender.name: reason for contender in config.contenders if (reason := contender.missing(pipe))}
    plain = sequential_scheduler(pipe.image_layout(None, None))
    contenders = [Contender(SCHEDULERS.name_of(type(plain)), plain)]
    if config.library:
        check_library(pipe, sampling["guidance_scale"])
        contenders.append(Contender("library", None))
    contenders += [contender for contender in config.contenders if contender.name not in skipped]
    scenes = benchmark_scenes(pipe, config.prompts, config.seed)
    captions = [caption for caption, _ in scenes]
    facts = {"model": config.model} | pipeline_facts(pipe)
    own = ("prompts", "repeats", "batch_size", "seed", "library", "fidelity")
    method = {name: getattr(config, name) for name in own} | {"captions": captions, "sampling": sampling}
    journal = journal or Journal()
    journal.begin({"facts": facts, "method": method, "contenders": labels_at(contenders, sampling["temperature"])})

    starts = range(0, config.prompts, config.batch_size)
    total = len(contenders) * (1 + config.repeats * len(starts))
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    overheads = []
    for contender in contenders:
        prompts = captions[: max(config.batch_size, OVERHEAD_PROMPTS)]
        overheads.append(
            journal.measure(f"overhead {contender.key}", _overhead, pipe, contender, prompts, config, sampling)
        )
        advance()
    runs: list[list[dict[str, Any]]] = [[] for _ in contenders]
    for repeat in range(config.repeats):
        for batch, start in enumerate(starts):
            group = scenes[start : start + config.batch_size]
            judged = config.fidelity and repeat == 0
            for index in _rotated(len(contenders), repeat + batch):
                contender = contenders[index]
                key = f"repeat {repeat} picture {start} {contender.key}"
                run = (pipe, contender, group, config.seed + start, sampling, judged)
                runs[index].append(journal.measure(key, _record, *run))
                advance()
    pixels = journal.measure("pixels", _pixel_seconds, pipe, captions[: config.batch_size], sampling)
    seconds = [[run["seconds"] for run in row] for row in runs]
    results = [
        _result(contender, sampling, row, seconds[0], seconds[1] if config.library else None, overhead)
        for contender, row, overhead in zip(contenders, runs, overheads)
    ]
    return SpeedReport(facts, method, skipped, pixels, results)


def _overhead(
    pipe: SJDAutoRegressivePipeline,
    contender: Contender,
    prompts: list[str],
    config: SpeedConfig,
    sampling: dict[str, float],
) -> dict[str, float] | None:
    """Shares of the decode loop, after some passes to warm up; the library is only warmed up.

    A run of its own: to time single calls on a GPU is to slow them down.
    """
    size, seed = config.batch_size, config.seed
    if contender.scheduler is None:
        draw(pipe, None, prompts[:size], seed, sampling)
        return None
    draw(pipe, contender.scheduler, prompts[:size], seed, sampling, callback_on_step_end=_stop_soon)
    batches = [
        measure_loop(pipe, contender.scheduler, prompts[start : start + size], seed + start, sampling)
        for start in range(0, len(prompts), size)
    ]
    loop = sum(batch.loop for batch in batches)
    transformer, drafting = (
        sum(sum(getattr(batch, part)) for batch in batches) for part in ("transformer", "drafting")
    )
    return {"overhead": 1 - transformer / loop, "drafting": drafting / loop}


def overhead_text(overhead: float, drafting: float) -> str:
    """Share outside the transformer, and in brackets the part of it that a network which drafts takes."""
    return f"{overhead:.0%}" + (f" ({drafting:.0%})" if drafting else "")


def _stop_soon(pipe: SJDAutoRegressivePipeline, pass_index: int, committed: int, tensors: dict[str, Any]) -> None:
    pipe.interrupt = pass_index + 1 >= WARM_UP_PASSES


def _record(
    pipe: SJDAutoRegressivePipeline,
    contender: Contender,
    scenes: list[tuple[str, Any]],
    seed: int,
    sampling: dict[str, float],
    judged: bool,
) -> dict[str, Any]:
    """One timed batch as JSON: seconds per picture, passes, and what the judge says of each picture."""
    captions, truths = zip(*scenes)
    run = draw(pipe, contender.scheduler, captions, seed, sampling)
    return {
        "seconds": run.seconds / len(captions),
        "tokens": run.tokens.shape[1],
        "passes": run.passes,
        "scores": score_run(pipe, run, truths) if judged else None,
    }


def _pixel_seconds(pipe: SJDAutoRegressivePipeline, prompts: list[str], sampling: dict[str, float]) -> float:
    """Seconds per picture from tokens to pixels; what the tokens are does not matter."""
    plain = sequential_scheduler(pipe.image_layout(None, None))
    tokens = draw(pipe, plain, prompts, 0, sampling, callback_on_step_end=_stop_soon).tokens
    samples = []
    for _ in range(3):
        wait_for(pipe.device)
        begin = time.perf_counter()
        render_tokens(pipe, tokens)
        samples.append((time.perf_counter() - begin) / len(prompts))
    return median(samples)


def _result(
    contender: Contender,
    sampling: dict[str, float],
    runs: list[dict[str, Any]],
    sequential: list[float],
    library: list[float] | None,
    shares: dict[str, float] | None,
) -> SpeedResult:
    seconds, tokens = [run["seconds"] for run in runs], runs[0]["tokens"]
    # Every repeat draws the same pictures, so the passes of later ones are those of the first.
    passes = mean(count for run in runs for count in run["passes"])
    scores = [score for run in runs for score in run["scores"] or ()]
    return SpeedResult(
        name=contender.name,
        label=contender.label_at(sampling["temperature"]),
        window=contender.settings.get("window", contender.scheduler.window) if contender.scheduler else None,
        settings=contender.settings,
        tokens=tokens,
        passes=passes,
        compression=tokens / passes,
        seconds=Spread.of(seconds),
        speedup=_speedup(sequential, seconds),
        library_speedup=_speedup(library, seconds) if library else None,
        overhead=shares and shares["overhead"],
        drafting=shares and shares["drafting"],
        fidelity=rates(scores) if scores else None,
        samples=seconds,
    )


def _speedup(baseline: list[float], seconds: list[float]) -> Spread:
    return Spread.of([slow / fast for slow, fast in zip(baseline, seconds)])


def _rotated(length: int, shift: int) -> list[int]:
    return [(index + shift) % length for index in range(length)]
