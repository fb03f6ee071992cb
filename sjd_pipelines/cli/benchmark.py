"""`sjd benchmark`: seconds, passes and fidelity of schedulers and windows, side by side; `--report` for the page."""

import argparse
from typing import TYPE_CHECKING, Any

from ..pipelines.families import FLOW
from ..tables import table
from .arguments import (
    DTYPES,
    CommandError,
    add_json_option,
    add_model_options,
    add_run_options,
    add_sampling_options,
    add_scheduler_names,
    add_windows,
    positive,
    sampling_options,
)
from .files import write_json
from .flow_benchmark import check_flow_options, print_flow_report
from .flow_benchmark import measure as measure_flow
from .loading import check_device, load_pipeline, model_kind, show_progress
from .measuring import model_name, open_journal, show_count, torch_threads
from .report import add_report_options, run_report
from .settings import check_names, make_scheduler

if TYPE_CHECKING:
    from ..benchmark.contenders import Contender
    from ..benchmark.speed import SpeedReport, SpeedResult

WINDOWS = (1, 4, 8, 16, 32, 64)
WIDE = "float64"  # in which the rounding of flows hides nothing; nothing else is worth it


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="compare schedulers and windows, or the solvers of a flow, in passes, seconds and fidelity",
        description="Draw the same pictures with every scheduler and window, in one process and in rotating order. "
        "Seconds are per picture, from prompt to tokens; a speed-up is the median of paired ratios. A scheduler may "
        "have settings of its own: NAME:KEY=VALUE,KEY=VALUE. With --json every run is saved as it ends, and the same "
        "command goes on where it was interrupted. Of a flow: error, PSNR and judged objects beside sequential "
        "sampling, by default of all solvers, with plans calibrated here.",
    )
    add_model_options(parser, (*DTYPES, WIDE))
    add_scheduler_names(parser)
    add_windows(parser, WINDOWS)
    parser.add_argument("--prompts", metavar="N", type=positive, help="pictures per contender; default: 4, report: 3")
    parser.add_argument(
        "--repeats", metavar="N", type=positive, default=3, help="timed runs over all prompts; default: %(default)s"
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=positive, help="pictures drawn at once; default: 1, of a flow both 1 and 16"
    )
    add_sampling_options(parser)
    parser.add_argument(
        "--library", action="store_true", help="run transformers' own generate on the same weights as well (Janus)"
    )
    parser.add_argument(
        "--fidelity", action="store_true", help="judge the pictures against their captions (bundled checkpoint)"
    )
    add_json_option(parser)
    add_run_options(parser)
    add_report_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    arguments.windows_given = arguments.windows != [WINDOWS]
    kind = model_kind(arguments.model)
    if arguments.dtype == WIDE and kind != FLOW:
        raise CommandError(f"--dtype {WIDE} is for flows, to see what solvers do where nothing rounds.")
    if kind == FLOW:
        check_flow_options(arguments)
        check_names((text.partition(":")[0] for text in arguments.schedulers or ()), FLOW)
    if arguments.report:
        return run_report(arguments)
    if kind == FLOW:
        return run_flow(arguments)
    journal = open_journal("--json", arguments.json)
    sampling = sampling_options(arguments)
    contenders = make_contenders(arguments.schedulers, [w for group in arguments.windows for w in group])
    device = check_device(arguments.device)
    progress = show_progress(arguments.quiet)

    from ..benchmark.speed import SpeedConfig, measure_speed

    config = SpeedConfig(
        contenders=contenders,
        model=model_name(arguments.model),
        prompts=arguments.prompts or SpeedConfig.prompts,
        repeats=arguments.repeats,
        batch_size=arguments.batch_size or 1,
        seed=arguments.seed,
        library=arguments.library,
        fidelity=arguments.fidelity,
        sampling=sampling,
    )
    with torch_threads(arguments.threads):
        pipe = load_pipeline(arguments.model, arguments.dtype, device, progress)
        pipe.set_progress_bar_config(disable=True)
        try:
            report = measure_speed(pipe, config, show_count if progress else None, journal)
        except ValueError as error:
            raise CommandError(error) from error
    if arguments.json:
        write_json(arguments.json, {"command": arguments.command} | report.to_json())
    print_report(report)
    return 0


def run_flow(arguments: argparse.Namespace) -> int:
    journal = open_journal("--json", arguments.json)
    device = check_device(arguments.device)
    progress = show_progress(arguments.quiet)
    with torch_threads(arguments.threads):
        pipe = load_pipeline(arguments.model, arguments.dtype, device, progress, FLOW)
        pipe.set_progress_bar_config(disable=True)
        report = measure_flow(pipe, arguments, journal, progress)
    if arguments.json:
        write_json(arguments.json, {"command": arguments.command} | report)
    print_flow_report(report)
    return 0


def make_contenders(names: list[str] | None, windows: list[int | str]) -> "tuple[Contender, ...]":
    """Every scheduler at every window it takes. Sequential decoding, the baseline, is left out: it always runs.

    Args:
        names: as registered, or with settings, `NAME:KEY=VALUE,KEY=VALUE`; None is all.
        windows: of those that have one.
    """
    from ..schedulers import SCHEDULERS

    check_names(text.partition(":")[0] for text in names or ())
    from ..benchmark.contenders import Contender
    from ..benchmark.exactness import windows_of
    from ..schedulers import AutoregressiveScheduler

    contenders = []
    for text in dict.fromkeys(names or SCHEDULERS):
        name, colon, assignments = text.partition(":")
        cls = SCHEDULERS[name]
        if cls is AutoregressiveScheduler:
            continue
        for window in windows_of(cls, dict.fromkeys(windows)) or (None,):
            scheduler = make_scheduler(name, window, assignments.split(",") if colon else ())
            contenders.append(Contender(name, scheduler))
    return tuple(contenders)


def print_report(report: "SpeedReport") -> None:
    """A line of facts, and a table with one row per contender."""
    print("  ".join(f"{key} {value}" for key, value in report.facts.items()))
    sampling = "  ".join(f"{key} {value}" for key, value in report.method["sampling"].items())
    print(
        f"{sampling}  prompts {report.method['prompts']}  repeats {report.method['repeats']}"
        f"  batch size {report.method['batch_size']}  pixels {report.pixel_seconds:.3f} s"
    )
    for name, reason in report.skipped.items():
        print(f"left out: {name}, {reason}")
    print()
    first = report.results[0]
    scores = [name for name in first.fidelity or () if name != "n"]
    headers = ["scheduler", "label", "window", "passes", "tokens/pass", "seconds", "x sequential"]
    headers += ["x library"] if first.library_speedup else []
    headers += ["overhead (drafting)", *scores]
    print(table(headers, [_row(result, scores) for result in report.results], left=2))


def special_settings(name: str, settings: dict[str, Any]) -> list[str]:
    """`KEY=VALUE` of the settings that differ from the defaults, the window aside; none for the library."""
    from ..schedulers import SCHEDULERS

    if name not in SCHEDULERS:
        return []
    usual = SCHEDULERS[name]().config
    return [f"{key}={value}" for key, value in settings.items() if key != "window" and value != usual[key]]


def _row(result: "SpeedResult", scores: list[str]) -> list[str]:
    from ..benchmark.speed import overhead_text

    ratios = [result.speedup] + ([result.library_speedup] if result.library_speedup else [])
    fidelity = result.fidelity or {}
    return [
        " ".join([result.name, *special_settings(result.name, result.settings)]),
        result.label,
        "-" if result.window is None else str(result.window),
        f"{result.passes:.1f}",
        f"{result.compression:.2f}",
        f"{result.seconds.median:.3f}",
        *(f"{ratio.median:.2f} ({ratio.minimum:.2f}-{ratio.maximum:.2f})" for ratio in ratios),
        "-" if result.overhead is None else overhead_text(result.overhead, result.drafting),
        *(f"{fidelity[name]:.0%}" if name in fidelity else "-" for name in scores),
    ]
