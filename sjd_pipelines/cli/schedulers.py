"""`sjd schedulers`: what there is to choose from."""

import argparse
import json
from typing import Any

from ..pipelines.families import AUTOREGRESSIVE, FLOW
from ..tables import table


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "schedulers",
        help="list decoding schedulers and flow solvers, their labels, papers and settings",
        description="List the decoding schedulers, and the solvers of flows. Labels: exact draws the picture that "
        "sequential decoding draws with the same seed (of a flow: as near as its own rounding), lossless draws from "
        "the same distribution, approximate does not.",
    )
    parser.add_argument("names", nargs="*", metavar="SCHEDULER", help="those to list; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ..flows import FLOW_SOLVERS
    from ..schedulers import SCHEDULERS
    from .settings import check_names

    names = arguments.names
    check_names(names, None)
    schedulers = [_entry(name, cls, cls.claim()) for name, cls in SCHEDULERS.items() if not names or name in names]
    solvers = [_entry(name, cls, cls.claim) for name, cls in FLOW_SOLVERS.items() if not names or name in names]
    if arguments.json:
        kinds = {AUTOREGRESSIVE: schedulers, FLOW: solvers}
        entries = [entry | {"for": kind} for kind, group in kinds.items() for entry in group]
        print(json.dumps(entries, indent=1, ensure_ascii=False))
        return 0
    titles = {"name": schedulers, "flow solver": solvers}
    print("\n\n".join(_table(title, entries) for title, entries in titles.items() if entries))
    return 0


def _entry(name: str, cls: type, claim: str) -> dict[str, Any]:
    from .settings import defaults

    return {"name": name, "class": cls.__name__, "label": claim, "paper": cls.paper, "settings": defaults(cls)}


def _table(title: str, entries: list[dict[str, Any]]) -> str:
    rows = [
        (
            entry["name"],
            entry["label"],
            " ".join(f"{key}={value}" for key, value in entry["settings"].items()),
            entry["paper"],
        )
        for entry in entries
    ]
    return table((title, "label", "settings", "paper"), rows, left=4)
