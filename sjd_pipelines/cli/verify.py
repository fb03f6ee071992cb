"""`sjd verify`: holds every scheduler to its label, on a model small enough to enumerate its pictures."""

import argparse

from ..tables import table
from .arguments import add_json_option, add_scheduler_names, add_windows, positive, seed
from .files import check_writable, write_json

WINDOWS = (1, 2, 3, 8)


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "verify",
        help="measure whether schedulers keep the distribution they claim to keep",
        description="Draw many pictures of a toy model and compare their frequencies with the enumerated "
        "distribution. Exit status 1 if a scheduler breaks its label.",
    )
    add_scheduler_names(parser)
    add_windows(parser, WINDOWS)
    parser.add_argument(
        "--samples", metavar="N", type=positive, default=20_000, help="pictures per measurement; default: %(default)s"
    )
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of pictures and toy; default: %(default)s")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        check_writable("--json", arguments.json)
    from .settings import check_windows

    windows = list(dict.fromkeys(window for group in arguments.windows for window in group))
    check_windows(arguments.schedulers, windows)
    from ..benchmark.exactness import verify

    verdicts = verify(arguments.schedulers, windows, samples=arguments.samples, seed=arguments.seed)
    if arguments.json:
        write_json(arguments.json, verdicts)
    rows = [
        (
            verdict["scheduler"],
            verdict["label"],
            f"{verdict['temperature']:g}",
            str(verdict["window"]),
            f"{verdict['total_variation']:.4f}",
            f"{verdict['noise_floor']:.4f}",
            f"{verdict['limit']:.4f}",
            "holds" if verdict["passed"] else "BROKEN",
        )
        for verdict in verdicts
    ]
    headers = ("scheduler", "label", "temperature", "window", "total variation", "noise floor", "limit", "verdict")
    print(table(headers, rows, left=2))
    return 0 if all(verdict["passed"] for verdict in verdicts) else 1
