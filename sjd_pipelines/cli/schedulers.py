"""`sjd schedulers`: what there is to choose from."""

import argparse
import json

from ..tables import table


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "schedulers",
        help="list decoding schedulers, their labels, papers and settings",
        description="List the decoding schedulers. Labels: exact draws the picture that sequential decoding draws "
        "with the same seed, lossless draws from the same distribution, approximate does not.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ..schedulers import SCHEDULERS
    from .settings import defaults

    entries = [
        {"name": name, "class": cls.__name__, "label": cls.claim(), "paper": cls.paper, "settings": defaults(cls)}
        for name, cls in SCHEDULERS.items()
    ]
    if arguments.json:
        print(json.dumps(entries, indent=1, ensure_ascii=False))
        return 0
    rows = [
        (
            entry["name"],
            entry["label"],
            " ".join(f"{key}={value}" for key, value in entry["settings"].items()),
            entry["paper"],
        )
        for entry in entries
    ]
    print(table(("name", "label", "settings", "paper"), rows, left=4))
    return 0
