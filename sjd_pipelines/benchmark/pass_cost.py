"""What a forward pass costs at each window, on random weights of a published Janus' shapes.

A pass over few tokens is bound by reading the weights: its floor is their bytes over the memory's bandwidth, whatever
the window. How far passes stay above the floor as the window grows decides what a window is worth on a machine.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from transformers import JanusForConditionalGeneration, LlamaConfig

from ..decoding import DecodingStatistics
from ..decoding.runner import Execution
from ..pipelines import SJDJanusPipeline
from ..schedulers import AutoregressiveScheduler, DecodingScheduler, SeededJacobiScheduler
from .journal import Journal
from .library import library_tokens
from .loop_seconds import measure_loop
from .machine import machine_facts, wait_for
from .toy import SPECIAL, WORDS, janus_pipeline, toy_config

PROMPT = "a red dog left of a blue car"
# Janus-Pro's own guidance; two rows per picture.
SAMPLING = {"guidance_scale": 5.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
WARM_UP_PASSES = 3
# A pass as it is written, its operations as a CUDA graph, compiled, and compiled as a CUDA graph: backend and whether
# it is captured.
EXECUTIONS = {
    "written": None,
    "captured": ("eager", True),
    "compiled": ("inductor", False),
    "compiled-captured": ("inductor", True),
}
LOGIT_SCALE = 3.0  # gain of either layer of the generation head
_COPIED_BYTES = 2**28
_COPIES = 10


@dataclass(frozen=True)
class JanusShape:
    """What a pass reads: language model, aligner of image tokens and generation head.

    Attributes:
        layers: of the language model.
        hidden_size: D.
        heads: of attention; keys and values have as many.
        intermediate_size: of the feed-forward.
        side: rows and columns of the token grid.
        codebook_size: V.
    """

    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    side: int = 24
    codebook_size: int = 16384


# As in the configurations of deepseek-community/Janus-Pro-1B and -7B; the toy is for trying the measurement out.
SHAPES = {
    "janus-pro-1b": JanusShape(24, 2048, 16, 5632),
    "janus-pro-7b": JanusShape(30, 4096, 32, 11008),
    "toy": JanusShape(2, 32, 4, 64, side=4, codebook_size=16),
}


@dataclass(frozen=True)
class PassCost:
    """One window.

    Attributes:
        scheduler: class name.
        window: drafts per pass; 0 is sequential decoding.
        execution: how passes are executed, of `EXECUTIONS`.
        ran: how they were, with the number of passes: where a compiler fails they are `recorded` or `captured`, and
            those without a graph, as the first one of a picture, `written`.
        milliseconds: median of a whole pass: planning, transformer, sampling, verification, copy of the counts.
        transformer: mean milliseconds of its transformer calls, timed in a run of their own; None where a pass is one
            graph, which has no calls.
        warm_up: seconds that recording, compiling and capturing took.
        graph_bytes: memory that the graphs hold, with keys and values.
        floors: `milliseconds` over the floor.
        samples: milliseconds of every timed pass.
    """

    scheduler: str
    window: int
    execution: str
    ran: dict[str, int]
    milliseconds: float
    transformer: float | None
    warm_up: float
    graph_bytes: int
    floors: float
    samples: list[float]


@dataclass(frozen=True)
class PassCostReport:
    """All windows of one shape on one machine.

    Attributes:
        shape: name in `SHAPES`.
        dtype: of the weights.
        batch_size: pictures; each has two rows.
        facts: machine and versions.
        weight_bytes: what every pass reads of the weights.
        bandwidth: bytes per second that a copy of a large tensor reads and writes.
        floor: milliseconds to read the weights at this bandwidth.
        library: milliseconds per token of transformers' own `generate`, which has a static cache for Janus.
        costs: by window and execution.
    """

    shape: str
    dtype: str
    batch_size: int
    facts: dict[str, Any]
    weight_bytes: int
    bandwidth: float
    floor: float
    library: float
    costs: list[PassCost]


def shape_pipeline(shape: JanusShape, dtype: torch.dtype, device: torch.device) -> SJDJanusPipeline:
    """Random weights, made where they stay. What no pass reads is tiny: words, vision tower, image tokenizer."""
    config = toy_config(shape.side, shape.codebook_size, shape.hidden_size)
    config.text_config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=16384,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), device:  # transformers initialises from the global generator
        torch.manual_seed(0)
        model = JanusForConditionalGeneration._from_config(config, dtype=dtype).eval()
        with torch.no_grad():
            for parameter in model.model.generation_head.parameters():
                if parameter.ndim > 1:  # else laws are flat, noise alone decides and every draft is accepted
                    parameter.normal_(std=LOGIT_SCALE * parameter.shape[1] ** -0.5)
    pipe = janus_pipeline(model, AutoregressiveScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def weight_bytes(pipe: SJDJanusPipeline) -> int:
    """Bytes of the weights that every pass reads whole: transformer layers and generation head."""
    parts = (pipe.model.model.language_model.layers, pipe.model.model.generation_head)
    return sum(parameter.nbytes for part in parts for parameter in part.parameters())


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of the fastest of some copies of a large tensor."""
    source = torch.zeros(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(_COPIES):
        wait_for(device)
        begin = time.perf_counter()
        target.copy_(source)
        wait_for(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * _COPIED_BYTES / min(seconds)


def measure_pass_costs(
    shape: str,
    windows: list[int],
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    batch_size: int = 1,
    passes: int = 50,
    executions: Sequence[str] = ("written",),
    progress: Callable[[int, int], None] | None = None,
    journal: Journal | None = None,
) -> PassCostReport:
    """Time the first passes of a picture, sequentially and with seeded Jacobi at every window, then the library.

    Args:
        shape: name in `SHAPES`.
        windows: drafts per pass.
        dtype: of the weights.
        device: where they are.
        batch_size: pictures.
        passes: timed passes of each, fewer if the picture ends first.
        executions: of `EXECUTIONS`, one after the other.
        progress: called as `progress(done, total)`.
        journal: where measurements are kept.

    Raises:
        ValueError: a picture ends before its passes are warm.
    """
    device, journal = torch.device(device), journal or Journal()
    pipe, facts = shape_pipeline(SHAPES[shape], dtype, device), machine_facts(device)
    made = {"shape": shape, "dtype": str(dtype).removeprefix("torch."), "batch_size": batch_size}
    journal.begin(
        {"run": made | {"windows": windows, "passes": passes, "executions": list(executions)}, "facts": facts}
    )
    schedulers = [AutoregressiveScheduler(), *(SeededJacobiScheduler(window=window) for window in windows)]
    number, costs, read = 1 + len(schedulers) * len(executions), [], weight_bytes(pipe)
    bandwidth = journal.measure("bandwidth", copy_bandwidth, device)
    floor = 1000 * read / bandwidth
    for execution in executions:
        for scheduler in schedulers:
            if progress is not None:
                progress(len(costs), number)
            key = f"window {scheduler.window} {execution}"
            cost = journal.measure(key, _pass_cost, pipe, scheduler, execution, batch_size, passes, floor)
            costs.append(PassCost(**cost))
    library = journal.measure("library", _library_milliseconds, pipe, batch_size)
    return PassCostReport(
        **made, facts=facts, weight_bytes=read, bandwidth=bandwidth, floor=floor, library=library, costs=costs
    )


def _pass_cost(
    pipe: SJDJanusPipeline, scheduler: DecodingScheduler, execution: str, batch_size: int, passes: int, floor: float
) -> dict[str, Any]:
    """A window's cost, as JSON. Where passes are compiled, those of a first picture are left out: it records them."""
    made, transformer = Execution(), None
    way = EXECUTIONS[execution]
    if way is None:
        seconds = measure_loop(pipe, scheduler, [PROMPT] * batch_size, 0, SAMPLING, WARM_UP_PASSES + passes)
        transformer = 1000 * sum(seconds.transformer) / seconds.passes
    else:
        pipe.enable_compile(*way)
        made = _pass_milliseconds(pipe, scheduler, batch_size, passes)[1].execution
    samples, statistics = _pass_milliseconds(pipe, scheduler, batch_size, passes)
    pipe.disable_compile()
    if not samples:
        raise ValueError(f"A picture takes no more than {WARM_UP_PASSES} passes at window {scheduler.window}.")
    middle = median(samples)
    cost = PassCost(
        scheduler=type(scheduler).__name__,
        window=scheduler.window,
        execution=execution,
        ran=ways_of(execution, max(statistics.forward_passes), statistics.execution),
        milliseconds=middle,
        transformer=transformer,
        warm_up=made.seconds,
        graph_bytes=made.nbytes,
        floors=middle / floor,
        samples=samples,
    )
    return asdict(cost)


def ways_of(execution: str, passes: int, made: Execution | None) -> dict[str, int]:
    """How many of a run's passes were executed in which way, those in the way that was asked for first.

    Args:
        execution: that was asked for, of `EXECUTIONS`.
        passes: of the run.
        made: what the run tells; None where passes are not recorded.
    """
    made = made or Execution()
    ran = Counter({execution: made.replayed - made.as_recorded})
    ran["captured" if "captured" in execution else "recorded"] += made.as_recorded
    ran["written"] += passes - made.replayed
    return {way: count for way, count in ran.items() if count}


def _pass_milliseconds(
    pipe: SJDJanusPipeline, scheduler: DecodingScheduler, batch_size: int, passes: int
) -> tuple[list[float], DecodingStatistics]:
    """Milliseconds of each pass after those that warm up, to the copy of its counts; what else the run tells."""
    ends = []

    def clock(pipe: SJDJanusPipeline, pass_index: int, committed: int, tensors: dict[str, Any]) -> None:
        ends.append(time.perf_counter())
        pipe.interrupt = pass_index + 1 >= WARM_UP_PASSES + passes

    output = pipe(
        PROMPT,
        num_images_per_prompt=batch_size,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        callback_on_step_end=clock,
        scheduler=scheduler,
        **SAMPLING,
    )
    taken = [1000 * (end - begin) for begin, end in zip(ends[WARM_UP_PASSES - 1 :], ends[WARM_UP_PASSES:])]
    return taken, output.statistics


def _library_milliseconds(pipe: SJDJanusPipeline, batch_size: int) -> float:
    """Milliseconds per token of the second of two whole pictures, prompt included."""
    for _ in range(2):
        wait_for(pipe.device)
        begin = time.perf_counter()
        tokens = library_tokens(pipe, [PROMPT] * batch_size, 0, **SAMPLING)
        wait_for(pipe.device)
        seconds = time.perf_counter() - begin
    return 1000 * seconds / tokens.shape[1]
