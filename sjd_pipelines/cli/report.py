"""`sjd benchmark --report`: the decoder report, a page and the numbers behind it in one folder."""

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..disk import read_object
from ..pipelines.families import AUTOREGRESSIVE, FLOW
from .arguments import CommandError, positive, sampling_options
from .files import check_output_folder, replacing, write_json
from .flow_benchmark import measure as measure_flow
from .loading import check_device, load_pipeline, model_kind, show_progress
from .measuring import model_name, open_journal, show_count, torch_threads

if TYPE_CHECKING:
    from ..benchmark.report import ReportConfig

PAGE, NUMBERS, JOURNAL = "index.html", "report.json", "unfinished.json"
NOTES = "NOTES.md"  # what people write beside a report, which is kept
SWEEPS = ("window", "guidance_scale", "temperature", "top_k")


def add_report_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument(
        "--report",
        metavar="FOLDER",
        type=Path,
        help="measure labels, passes, seconds, fidelity, curves and relaxed decoders, and write a page about them, "
        f"{PAGE}, and its numbers, {NUMBERS}; a folder with numbers only gets its page written again",
    )
    group.add_argument(
        "--shown", metavar="N", type=positive, default=3, help="pictures on the page; default: %(default)s"
    )
    group.add_argument(
        "--per-kind", metavar="N", type=positive, default=3, help="judged pictures per kind; default: %(default)s"
    )
    group.add_argument(
        "--sweeps",
        metavar="NAME",
        nargs="*",
        choices=SWEEPS,
        default=list(SWEEPS),
        help=f"which curves, of {', '.join(SWEEPS)}; default: all",
    )
    group.add_argument(
        "--curves", metavar="NAME", nargs="+", help="schedulers with a curve; default: all but the approximate ones"
    )
    group.add_argument(
        "--swept", metavar="N", type=positive, default=2, help="pictures per point of a curve; default: %(default)s"
    )
    group.add_argument("--no-relaxed", action="store_true", help="leave the relaxed decoders' bounds out")
    group.add_argument(
        "--samples",
        metavar="N",
        type=positive,
        default=5000,
        help="enumerable pictures per label; default: %(default)s",
    )


def run_report(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.report
    found = check_report_folder(folder)
    numbers = measure(arguments, folder) if found is None else found
    from ..benchmark.flow_page import render_flow_page
    from ..benchmark.report_page import render_page

    render = render_flow_page if numbers["report"].get("kind") == FLOW else render_page
    try:
        page = render(numbers["report"], numbers["command"], numbers["created"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if found is None:
            raise
        raise CommandError(
            f"--report {folder}: {NUMBERS} there was edited, or is another version's; delete it to measure again."
        ) from error
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(folder / PAGE)
    return 0


def check_report_folder(folder: Path) -> dict[str, Any] | None:
    """The numbers of a finished report in `folder`, or None where one is still to be made.

    Raises:
        CommandError: something else is in it, or it cannot be written in.
    """
    check_output_folder("--report", folder)
    if not folder.exists():
        return None
    names = {path.name for path in folder.iterdir()} - {NOTES}
    if not names <= {PAGE, NUMBERS, JOURNAL} or names == {PAGE}:
        raise CommandError(f"--report {folder}: holds other files than a report; name a new or an empty folder.")
    if NUMBERS not in names:
        return None
    try:
        numbers = read_object(folder / NUMBERS)
    except OSError as error:
        raise CommandError(f"--report {folder}: {NUMBERS} there is not that of a report.") from error
    kinds = {"command": str, "created": str, "report": dict}
    if not all(isinstance(numbers.get(key), kind) for key, kind in kinds.items()):
        raise CommandError(f"--report {folder}: {NUMBERS} there is not that of a report.")
    return {key: numbers[key] for key in kinds}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure and write the numbers; what an interrupted run had measured is used."""
    flow = model_kind(arguments.model) == FLOW
    config = None if flow else make_config(arguments)
    device = check_device(arguments.device)
    progress = show_progress(arguments.quiet)
    from ..benchmark.report import measure_report

    with torch_threads(arguments.threads):
        pipe = load_pipeline(arguments.model, arguments.dtype, device, progress, FLOW if flow else AUTOREGRESSIVE)
        pipe.set_progress_bar_config(disable=True)
        made = not folder.exists()
        folder.mkdir(exist_ok=True)
        try:
            journal = open_journal("--report", folder / JOURNAL)
            if flow:
                report = measure_flow(pipe, arguments, journal, progress)
            else:
                report = measure_report(pipe, config, journal, count if progress else None)
        except ValueError as error:
            raise CommandError(error) from error
        finally:
            if made and not any(folder.iterdir()):
                folder.rmdir()
    numbers = {"command": arguments.command, "created": date.today().isoformat(), "report": report}
    write_json(folder / NUMBERS, numbers, indent=None)
    (folder / JOURNAL).unlink(missing_ok=True)
    return numbers


def count(stage: str, done: int, total: int) -> None:
    show_count(done, total, stage)


def curve_windows(groups: list[list[int | str]]) -> tuple[int, ...]:
    """Raises `CommandError` for a window that has no place on an axis."""
    windows = {window for group in groups for window in group}
    if "auto" in windows:
        raise CommandError("--windows auto: the report draws curves over numbers.")
    return tuple(sorted(windows))


def make_config(arguments: argparse.Namespace) -> "ReportConfig":
    from .settings import check_names, check_windows

    check_names(arguments.schedulers)
    windows, sampling = curve_windows(arguments.windows), sampling_options(arguments)
    check_windows(arguments.curves, windows)
    from ..benchmark.contenders import RELAXED_FAMILIES, at_defaults
    from ..benchmark.report import ReportConfig

    return ReportConfig(
        contenders=at_defaults(arguments.schedulers),
        model=model_name(arguments.model),
        shown=arguments.shown,
        prompts=arguments.prompts or ReportConfig.prompts,
        per_kind=arguments.per_kind,
        sweeps=tuple(arguments.sweeps),
        swept=arguments.swept,
        curves=arguments.curves and tuple(arguments.curves),
        windows=windows,
        families=() if arguments.no_relaxed else RELAXED_FAMILIES,
        samples=arguments.samples,
        seed=arguments.seed,
        sampling=sampling,
    )
