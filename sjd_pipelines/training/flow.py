"""`python -m sjd_pipelines.training.flow`: what makes the bundled flow.

train      train it, or train on; a run stops after --minutes and goes on with the same command
evaluate   draw pictures and judge them
export     write the bundled folder
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..disk import read_object
from ..learning.runs import in_words, write_atomically
from .course import add_course_options, add_export_options
from .flow_export import evaluate_flow, export_flow
from .flow_train import FlowRecipe, train_flow


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sjd_pipelines.training.flow",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    add_course_options(training)
    scoring = commands.add_parser("evaluate")
    scoring.add_argument("--folder", type=Path, required=True, help="the run's folder")
    scoring.add_argument("--count", type=int, default=200, help="pictures; default: %(default)s")
    scoring.add_argument("--guidance-scale", type=float, help="default: that of the exported model")
    scoring.add_argument("--seed", type=int, default=0, help="of the first picture")
    scoring.add_argument("--threads", type=int, default=1)
    scoring.add_argument("--sequential", action="store_true", help="draw one token after the other")
    scoring.add_argument("--sheet", type=Path, help="write the first picture of every class here")
    scoring.add_argument("--results", type=Path, help="write the scores here, for `export`")
    add_export_options(commands.add_parser("export"))
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = vars(build_parser().parse_args(arguments))
    return in_words(lambda: _run(**options))


def _run(command: str, **options: Any) -> None:
    if command == "train":
        train_flow(FlowRecipe(**options))
        return
    path = options.pop("results")
    if command == "evaluate":
        results = evaluate_flow(**options)
        if path is not None:
            write_atomically(path, lambda temporary: temporary.write_text(json.dumps(results, indent=2) + "\n"))
        print(json.dumps(results, indent=2))
    else:
        print(export_flow(results=read_object(path) if path else None, **options))


if __name__ == "__main__":
    sys.exit(main())
