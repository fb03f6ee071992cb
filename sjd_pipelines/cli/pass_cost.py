"""`sjd pass-cost`: what a forward pass costs at each window, on random weights of Janus-Pro's shapes."""

import argparse
from dataclasses import asdict

from ..tables import table
from .arguments import CommandError, add_json_option, at_once, positive, windows
from .files import write_json
from .loading import check_device, show_progress
from .measuring import open_journal, show_count

SHAPES = ("janus-pro-1b", "janus-pro-7b", "toy")
WINDOWS = (1, 16, 32, 64)
EXECUTIONS = ("written", "captured", "compiled", "compiled-captured")


HEAD = ("pass", "execution", "ran", "ms", "transformer ms", "x floor", "x library token", "warm-up s", "graph MiB")


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "pass-cost",
        help="time a forward pass at several windows, on random weights of Janus-Pro's shapes",
        description="Milliseconds per pass against the time it takes to read the weights once at the bandwidth of a "
        "copy, and against transformers' own generate. Weights are random: nothing is downloaded. "
        "What was asked for need not be what ran, since a compiler may fail: the report has both.",
    )
    parser.add_argument("--shape", choices=SHAPES, default=SHAPES[0], help="default: %(default)s")
    parser.add_argument(
        "--windows",
        metavar="W,W,...",
        type=windows,
        default=list(WINDOWS),
        help=f"drafts verified per pass; default: {','.join(map(str, WINDOWS))}",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="bfloat16",
        help="number format of the weights; default: %(default)s",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1; default: cuda if there is one")
    parser.add_argument("--batch-size", metavar="B", type=at_once, default=1, help="pictures; default: %(default)s")
    parser.add_argument(
        "--passes", metavar="N", type=positive, default=50, help="timed passes per window; default: %(default)s"
    )
    parser.add_argument(
        "--execution",
        dest="executions",
        choices=EXECUTIONS,
        nargs="+",
        help="passes as they are written, captured as a CUDA graph, compiled, or both; default: all that it can",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on screen")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    device = check_device(arguments.device)
    on_cuda = device.startswith("cuda")
    executions = arguments.executions or [name for name in EXECUTIONS if on_cuda or "captured" not in name]
    for name in executions:
        if "captured" in name and not on_cuda:
            raise CommandError(f"--execution {name} needs a CUDA device, not {device}.")
    journal = open_journal("--json", arguments.json)
    import torch

    from ..benchmark.pass_cost import measure_pass_costs

    try:
        report = measure_pass_costs(
            arguments.shape,
            arguments.windows,
            getattr(torch, arguments.dtype),
            device,
            arguments.batch_size,
            arguments.passes,
            executions,
            show_count if show_progress(arguments.quiet) else None,
            journal,
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    if arguments.json:
        write_json(arguments.json, {"command": arguments.command} | asdict(report))
    print(
        f"{report.shape}, {report.dtype}, {report.facts['device']}: {report.weight_bytes / 2**20:,.1f} MiB of weights "
        f"per pass at {report.bandwidth / 1e9:,.1f} GB/s, floor {report.floor:.3f} ms; "
        f"the library takes {report.library:.2f} ms per token."
    )
    rows = [
        (
            "sequential" if cost.window == 0 else f"window {cost.window}",
            cost.execution,
            ", ".join(f"{count} {way}" for way, count in cost.ran.items()),
            f"{cost.milliseconds:.2f}",
            "" if cost.transformer is None else f"{cost.transformer:.2f}",
            f"{cost.floors:.2f}",
            f"{cost.milliseconds / report.library:.2f}",
            f"{cost.warm_up:.1f}",
            f"{cost.graph_bytes / 2**20:,.1f}",
        )
        for cost in report.costs
    ]
    print(table(HEAD, rows, left=3))
    return 0
