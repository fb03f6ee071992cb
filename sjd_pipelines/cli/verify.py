"""`sjd verify`: holds schedulers to their labels on a model small enough to enumerate, and solvers on a small flow."""

import argparse
from typing import Any

from ..flows.registry import FLOW_SOLVERS
from ..schedulers import SCHEDULERS
from ..tables import table
from .arguments import add_json_option, add_scheduler_names, add_windows, positive, seed
from .files import check_writable, write_json
from .settings import check_names, check_windows

WINDOWS = (1, 2, 3, 8)


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "verify",
        help="measure whether schedulers, and solvers of flows, keep what they claim to keep",
        description="Draw many pictures of a toy model and compare their frequencies with the enumerated "
        "distribution; of solvers of flows, compare pictures of a toy flow with those of sequential sampling. Exit "
        "status 1 if a scheduler or a solver breaks its label.",
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
    check_names(arguments.schedulers, kind=None)
    names = arguments.schedulers or [*SCHEDULERS, *FLOW_SOLVERS]
    schedulers = [name for name in names if name in SCHEDULERS]
    solvers = [name for name in names if name in FLOW_SOLVERS]
    windows = list(dict.fromkeys(window for group in arguments.windows for window in group))
    if schedulers:
        check_windows(schedulers, windows)
    from ..benchmark.exactness import verify
    from ..benchmark.flow_exactness import verify_flows

    verdicts = verify(schedulers, windows, samples=arguments.samples, seed=arguments.seed) if schedulers else []
    flow_verdicts = verify_flows(solvers, arguments.seed) if solvers else []
    if arguments.json:
        write_json(arguments.json, verdicts + flow_verdicts)
    tables = [verdict_table(verdicts)] if verdicts else []
    tables += [flow_table(flow_verdicts)] if flow_verdicts else []
    print("\n\n".join(tables))
    return 0 if all(verdict["passed"] for verdict in verdicts + flow_verdicts) else 1


def verdict_table(verdicts: list[dict[str, Any]]) -> str:
    rows = [
        (
            verdict["scheduler"],
            verdict["label"],
            f"{verdict['temperature']:g}",
            str(verdict["window"]),
            f"{verdict['total_variation']:.4f}",
            f"{verdict['noise_floor']:.4f}",
            f"{verdict['limit']:.4f}",
            _words(verdict, "total_variation"),
        )
        for verdict in verdicts
    ]
    headers = ("scheduler", "label", "temperature", "window", "total variation", "noise floor", "limit", "verdict")
    return table(headers, rows, left=2)


def flow_table(verdicts: list[dict[str, Any]]) -> str:
    rows = [
        (
            f"{verdict['scheduler']} {verdict['settings']}".strip(),
            verdict["label"],
            f"{verdict['error']:.1e}",
            f"{verdict['rounding']:.1e}",
            f"{verdict['limit']:.1e}",
            f"{verdict['passes']} of {verdict['sequential_passes']}",
            _words(verdict, "error"),
        )
        for verdict in verdicts
    ]
    return table(("flow solver", "label", "error", "rounding", "limit", "passes", "verdict"), rows, left=2)


def _words(verdict: dict[str, Any], measured: str) -> str:
    """The verdict; of what claims nothing, on which side of the limit of what does it is."""
    if not verdict["passed"]:
        return "BROKEN"
    if verdict["label"] != "approximate":
        return "holds"
    return "beyond the limit, as labelled" if verdict[measured] > verdict["limit"] else "within the limit"
