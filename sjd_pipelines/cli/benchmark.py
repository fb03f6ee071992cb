"""`sjd benchmark`: seconds, passes and fidelity of schedulers and windows, side by side."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import CommandError, add_model_options, add_sampling_options, positive, sampling_options, seed
from .files import check_writable, write_json
from .loading import check_device, load_pipeline, show_progress
from .tables import table

if TYPE_CHECKING:
    from ..benchmark.speed import Contender, SpeedReport, SpeedResult

WINDOWS = (1, 4, 8, 16, 32, 64)


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="compare schedulers and windows in passes, seconds and fidelity",
        description="Draw the same pictures with every scheduler and window, in one process and in rotating order. "
        "Seconds are per picture, from prompt to tokens; a speed-up is the median of paired ratios.",
    )
    add_model_options(parser)
    parser.add_argument(
        "--schedulers", metavar="NAME", nargs="+", help="what to compare, see `sjd schedulers`; default: all"
    )
    parser.add_argument(
        "--windows",
        metavar="W",
        type=positive,
        nargs="+",
        default=WINDOWS,
        help=f"drafts verified per pass, each with each scheduler; default: {' '.join(map(str, WINDOWS))}",
    )
    parser.add_argument(
        "--prompts", metavar="N", type=positive, default=4, help="pictures per contender; default: %(default)s"
    )
    parser.add_argument(
        "--repeats", metavar="N", type=positive, default=3, help="timed runs over all prompts; default: %(default)s"
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=positive, default=1, help="pictures drawn at once; default: %(default)s"
    )
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of the first picture; default: %(default)s")
    add_sampling_options(parser)
    parser.add_argument("--threads", metavar="N", type=positive, help="CPU threads; default: torch's own choice")
    parser.add_argument(
        "--library", action="store_true", help="run transformers' own generate on the same weights as well (Janus)"
    )
    parser.add_argument(
        "--fidelity", action="store_true", help="judge the pictures against their captions (bundled checkpoint)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything measured to this file as well")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        check_writable("--json", arguments.json)
    contenders = make_contenders(arguments.schedulers, arguments.windows)
    sampling = sampling_options(arguments)
    device = check_device(arguments.device)
    progress = show_progress(arguments.quiet)

    from ..benchmark.speed import SpeedConfig, measure_speed

    config = SpeedConfig(
        contenders=contenders,
        model=model_name(arguments.model),
        prompts=arguments.prompts,
        repeats=arguments.repeats,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        library=arguments.library,
        fidelity=arguments.fidelity,
        sampling=sampling,
    )
    with torch_threads(arguments.threads):
        pipe = load_pipeline(arguments.model, arguments.dtype, device, progress)
        pipe.set_progress_bar_config(disable=True)
        try:
            report = measure_speed(pipe, config, show_count if progress else None)
        except ValueError as error:
            raise CommandError(error) from error
    if arguments.json:
        write_json(arguments.json, report.to_json())
    print_report(report)
    return 0


def make_contenders(names: list[str] | None, windows: tuple[int, ...]) -> "tuple[Contender, ...]":
    """Every scheduler at every window. Sequential decoding, the baseline, is left out: it always runs."""
    from ..benchmark.speed import Contender
    from ..schedulers import SCHEDULERS, AutoregressiveScheduler
    from .settings import make_scheduler, scheduler_class, settings

    contenders = []
    for name in names or SCHEDULERS:
        cls = scheduler_class(name)
        if cls is AutoregressiveScheduler:
            continue
        for window in windows if "window" in settings(cls) else (None,):
            contenders.append(Contender(name, make_scheduler(name, window)))
    return tuple(contenders)


def model_name(model: str | None) -> str:
    """A hub id as it is, a folder by its name alone."""
    if model is None:
        return "bundled"
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def print_report(report: "SpeedReport") -> None:
    """A line of facts, and a table with one row per contender."""
    print("  ".join(f"{key} {value}" for key, value in report.facts.items()))
    sampling = "  ".join(f"{key} {value}" for key, value in report.method["sampling"].items())
    print(
        f"{sampling}  prompts {report.method['prompts']}  repeats {report.method['repeats']}"
        f"  batch size {report.method['batch_size']}  pixels {report.pixel_seconds:.3f} s"
    )
    print()
    first = report.results[0]
    scores = [name for name in first.fidelity or () if name != "n"]
    headers = ["scheduler", "label", "window", "passes", "tokens/pass", "seconds", "x sequential"]
    headers += ["x library"] if first.library_speedup else []
    headers += ["overhead", *scores]
    print(table(headers, [_row(result, scores) for result in report.results], left=2))


def _row(result: "SpeedResult", scores: list[str]) -> list[str]:
    ratios = [result.speedup] + ([result.library_speedup] if result.library_speedup else [])
    fidelity = result.fidelity or {}
    return [
        result.name,
        result.label,
        "-" if result.window is None else str(result.window),
        f"{result.passes:.1f}",
        f"{result.compression:.2f}",
        f"{result.seconds.median:.3f}",
        *(f"{ratio.median:.2f} ({ratio.minimum:.2f}-{ratio.maximum:.2f})" for ratio in ratios),
        "-" if result.overhead is None else f"{result.overhead:.0%}",
        *(f"{fidelity[name]:.0%}" if name in fidelity else "-" for name in scores),
    ]


def show_count(done: int, total: int) -> None:
    """A counter that stays on its line and is gone at the end."""
    print(f"\r{done}/{total} runs" if done < total else "\r\033[K", end="", file=sys.stderr, flush=True)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Run with `count` CPU threads; torch's setting is global, so it is put back."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
