"""`sjd verify`: holds every scheduler to its label, on a model small enough to enumerate its pictures."""

import argparse
from pathlib import Path

from .arguments import positive, seed
from .files import check_writable, write_json
from .tables import table


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "verify",
        help="measure whether schedulers keep the distribution they claim to keep",
        description="Draw many pictures of a toy model and compare their frequencies with the enumerated "
        "distribution. Exit status 1 if a scheduler breaks its label.",
    )
    parser.add_argument(
        "--scheduler", metavar="NAME", nargs="+", help="the schedulers to measure, see `sjd schedulers`; default: all"
    )
    parser.add_argument(
        "--samples", metavar="N", type=positive, default=20_000, help="pictures per measurement; default: %(default)s"
    )
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of pictures and toy; default: %(default)s")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the verdicts to this file as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        check_writable("--json", arguments.json)
    from ..benchmark.exactness import verify
    from .settings import scheduler_class

    for name in arguments.scheduler or ():
        scheduler_class(name)
    verdicts = verify(arguments.scheduler, samples=arguments.samples, seed=arguments.seed)
    if arguments.json:
        write_json(arguments.json, verdicts)
    rows = [
        (
            verdict["scheduler"],
            verdict["label"],
            str(verdict["window"]),
            f"{verdict['total_variation']:.4f}",
            f"{verdict['noise_floor']:.4f}",
            f"{verdict['limit']:.4f}",
            "holds" if verdict["passed"] else "BROKEN",
        )
        for verdict in verdicts
    ]
    print(table(("scheduler", "label", "window", "total variation", "noise floor", "limit", "verdict"), rows, left=2))
    return 0 if all(verdict["passed"] for verdict in verdicts) else 1
