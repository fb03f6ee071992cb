"""Schedulers against the clock: same weights, prompts and seeds, one process, interleaved.

Every contender draws every batch of prompts in turn, in an order that rotates, so that whatever else the machine does
meets all of them alike. A speed-up is the median of ratios of runs that stand next to each other. Time is measured
from the prompt to the last token; pixels, the same work for everyone, are timed once and reported apart.
"""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from statistics import mean, median
from typing import Any

import diffusers
import torch
import transformers

from ..pipelines import SJDAutoRegressivePipeline
from ..schedulers import AutoregressiveScheduler, DecodingScheduler
from ..version import __version__
from .fidelity import held_out_scenes, score_pictures
from .library import check_library, library_tokens

SCENE_KINDS = ("single", "count", "relation")
TRANSFORMER_CALLS = ("embed_image_tokens", "run_transformer", "image_logits")


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        name: what to call it.
        scheduler: None is the library's own `generate`.
    """

    name: str
    scheduler: DecodingScheduler | None

    @property
    def label(self) -> str:
        return self.scheduler.label if self.scheduler else "lossless"


@dataclass(frozen=True)
class SpeedConfig:
    """What is measured.

    Attributes:
        contenders: what runs against sequential decoding, which is always there.
        model: what to call the model in the report.
        prompts: how many captions of held-out scenes, one picture each.
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
        fidelity: rate of each score of the judge; None if not asked for.
        samples: seconds per picture of every timed batch, in the order they ran.
    """

    name: str
    label: str
    window: int | None
    settings: dict[str, Any]
    tokens: int
    passes: float
    compression: float
    seconds: Spread
    speedup: Spread
    library_speedup: Spread | None
    overhead: float | None
    fidelity: dict[str, float] | None
    samples: list[float]


@dataclass(frozen=True)
class SpeedReport:
    """A whole benchmark: facts about the machine, the method's numbers, and a result per contender."""

    facts: dict[str, Any]
    method: dict[str, Any]
    pixel_seconds: float
    results: list[SpeedResult]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Measurement:
    """What accumulates per contender."""

    seconds: list[float] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    tokens: list[torch.Tensor] = field(default_factory=list)
    overhead: float | None = None


def measure_speed(
    pipe: SJDAutoRegressivePipeline, config: SpeedConfig, progress: Callable[[int, int], None] | None = None
) -> SpeedReport:
    """Run the benchmark. The pipeline gets its own scheduler back.

    Args:
        pipe: any family; its progress bar should be off.
        config: what to measure.
        progress: called as `progress(done, total)` after each batch.

    Raises:
        ValueError: the library baseline cannot run with this model or guidance.
    """
    sampling = pipe.sampling_defaults() | config.sampling
    contenders = [Contender("autoregressive", AutoregressiveScheduler()), *config.contenders]
    if config.library:
        check_library(pipe, sampling["guidance_scale"])
        contenders.insert(1, Contender("library", None))
    scenes = benchmark_scenes(config.prompts, config.seed)
    captions = [caption for caption, _ in scenes]
    starts = range(0, config.prompts, config.batch_size)
    total = len(contenders) * (1 + config.repeats * len(starts))
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    measurements = [_Measurement() for _ in contenders]
    before = pipe.scheduler
    try:
        for contender, measurement in zip(contenders, measurements):
            _run(pipe, contender, captions[: config.batch_size], config.seed, sampling)  # warm-up
            measurement.overhead = _overhead(pipe, contender, captions[: config.batch_size], config.seed, sampling)
            advance()
        for repeat in range(config.repeats):
            for batch, start in enumerate(starts):
                prompts = captions[start : start + config.batch_size]
                for index in _rotated(len(contenders), repeat + batch):
                    seconds, tokens, passes = _run(pipe, contenders[index], prompts, config.seed + start, sampling)
                    measurements[index].seconds.append(seconds / len(prompts))
                    if repeat == 0:
                        measurements[index].tokens.append(tokens)
                        measurements[index].passes += passes
                    advance()
    finally:
        pipe.scheduler = before

    pixel_seconds, fidelities = _pixels(pipe, measurements, [scene for _, scene in scenes], config.fidelity)
    library = measurements[1].seconds if config.library else None
    own = ("prompts", "repeats", "batch_size", "seed", "library", "fidelity")
    method = {name: getattr(config, name) for name in own} | {"captions": captions, "sampling": sampling}
    results = [
        _result(contender, measurement, measurements[0].seconds, library, fidelity)
        for contender, measurement, fidelity in zip(contenders, measurements, fidelities)
    ]
    return SpeedReport({"model": config.model} | machine_facts(pipe), method, pixel_seconds, results)


def benchmark_scenes(count: int, seed: int = 0) -> list[tuple[str, Any]]:
    """Captions with their scenes, one object, several objects and relations in turn."""
    per_kind = -(-count // len(SCENE_KINDS))
    kinds = [held_out_scenes(per_kind, kind, seed) for kind in SCENE_KINDS]
    return [scene for group in zip(*kinds) for scene in group][:count]


def machine_facts(pipe: SJDAutoRegressivePipeline) -> dict[str, Any]:
    """What a reader needs to judge the seconds: versions, threads, device, number format."""
    device = pipe.device
    return {
        "pipeline": type(pipe).__name__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "diffusers": diffusers.__version__,
        "sjd_pipelines": __version__,
    }


@contextmanager
def transformer_seconds(pipe: SJDAutoRegressivePipeline) -> Iterator[list[float]]:
    """Times every call into the transformer (embedding, layers, head) after the prefill: seconds per call.

    The calls are timed on this one pipeline object, which is as before when the block ends.
    """
    seconds: list[float] = []
    prefill = pipe.prefill

    def timed(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args: Any) -> torch.Tensor:
            _wait_for(pipe.device)
            begin = time.perf_counter()
            result = method(*args)
            _wait_for(pipe.device)
            seconds.append(time.perf_counter() - begin)
            return result

        return call

    def prefill_untimed(*args: Any) -> Any:
        memory = prefill(*args)
        seconds.clear()
        return memory

    for name in TRANSFORMER_CALLS:
        setattr(pipe, name, timed(getattr(pipe, name)))
    pipe.prefill = prefill_untimed
    try:
        yield seconds
    finally:
        for name in (*TRANSFORMER_CALLS, "prefill"):
            delattr(pipe, name)


def _overhead(
    pipe: SJDAutoRegressivePipeline, contender: Contender, prompts: list[str], seed: int, sampling: dict[str, float]
) -> float | None:
    """Share of the decode loop outside the transformer; the library's loop cannot be looked into.

    A run of its own: to time single calls on a GPU is to slow them down.
    """
    if contender.scheduler is None:
        return None
    pipe.scheduler = contender.scheduler
    with transformer_seconds(pipe) as seconds:
        output = pipe(prompts, generator=_generators(seed, len(prompts)), output_type="latent", **sampling)
    return 1 - sum(seconds) / output.statistics.seconds["decode"]


def _run(
    pipe: SJDAutoRegressivePipeline, contender: Contender, prompts: list[str], seed: int, sampling: dict[str, float]
) -> tuple[float, torch.Tensor, list[int]]:
    """Draw one batch: seconds from prompt to tokens, the tokens `[B, rows * columns]`, and passes per picture."""
    _wait_for(pipe.device)
    begin = time.perf_counter()
    if contender.scheduler is None:
        tokens = library_tokens(pipe, prompts, seed, **sampling)
        passes = [tokens.shape[1]] * len(prompts)
    else:
        pipe.scheduler = contender.scheduler
        output = pipe(prompts, generator=_generators(seed, len(prompts)), output_type="latent", **sampling)
        tokens, passes = output.tokens, output.statistics.forward_passes
    _wait_for(pipe.device)
    return time.perf_counter() - begin, tokens, passes


@torch.no_grad()
def _pixels(
    pipe: SJDAutoRegressivePipeline, measurements: list[_Measurement], scenes: list[Any], judge: bool
) -> tuple[float, list[dict[str, float] | None]]:
    """Median seconds that a picture's pixels take, and what the judge says of each contender's pictures."""
    layout = pipe.image_layout(None, None)
    seconds, fidelities = [], []
    for measurement in measurements:
        pictures = []
        for tokens in measurement.tokens if judge else measurement.tokens[:1]:
            _wait_for(pipe.device)
            begin = time.perf_counter()
            pixels = pipe.decode_tokens(tokens, layout)  # [B, 3, H, W] in [-1, 1]
            _wait_for(pipe.device)
            seconds.append((time.perf_counter() - begin) / len(tokens))
            pictures += (pixels.float().cpu() / 2 + 0.5).clamp(0, 1)
        fidelities.append(score_pictures(pictures, scenes) if judge else None)
    return median(seconds), fidelities


def _result(
    contender: Contender,
    measurement: _Measurement,
    sequential: list[float],
    library: list[float] | None,
    fidelity: dict[str, float] | None,
) -> SpeedResult:
    scheduler, seconds = contender.scheduler, measurement.seconds
    tokens = measurement.tokens[0].shape[1]
    passes = mean(measurement.passes)
    return SpeedResult(
        name=contender.name,
        label=contender.label,
        window=scheduler.window if scheduler else None,
        settings={key: value for key, value in scheduler.config.items() if key[0] != "_"} if scheduler else {},
        tokens=tokens,
        passes=passes,
        compression=tokens / passes,
        seconds=Spread.of(seconds),
        speedup=_speedup(sequential, seconds),
        library_speedup=_speedup(library, seconds) if library else None,
        overhead=measurement.overhead,
        fidelity=fidelity,
        samples=seconds,
    )


def _speedup(baseline: list[float], seconds: list[float]) -> Spread:
    return Spread.of([slow / fast for slow, fast in zip(baseline, seconds)])


def _generators(seed: int, count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + index) for index in range(count)]


def _rotated(length: int, shift: int) -> list[int]:
    return [(index + shift) % length for index in range(length)]


def _wait_for(device: torch.device) -> None:
    """GPUs work while Python goes on; the clock must not."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
