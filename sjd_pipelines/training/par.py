"""`python -m sjd_pipelines.training.par`: what makes the bundled class-conditional model.

train      train it, or train on; a run stops after --minutes and goes on with the same command
evaluate   draw pictures and judge them
compare    several runs side by side: passes, seconds, judged pictures
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
from .par_compare import compare_orders, comparison_table
from .par_export import evaluate_par, export_par
from .par_train import ORDERS, ParRecipe, train_par


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sjd_pipelines.training.par",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("--order", choices=ORDERS, default="par", help="default: %(default)s")
    training.add_argument("--groups", type=int, default=4, help="tokens made at once; default: %(default)s")
    add_course_options(training)
    scoring = commands.add_parser("evaluate")
    scoring.add_argument("--folder", type=Path, required=True, help="the run's folder")
    scoring.add_argument("--count", type=int, default=200, help="pictures; default: %(default)s")
    scoring.add_argument("--guidance-scale", type=float, help="default: that of the exported model")
    scoring.add_argument("--top-p", type=float, help="likewise")
    scoring.add_argument("--seed", type=int, default=0, help="of the first picture")
    scoring.add_argument("--sheet", type=Path, help="write the first picture of every class here")
    comparing = commands.add_parser("compare")
    comparing.add_argument("--folders", type=Path, nargs="+", required=True, help="of the runs")
    comparing.add_argument("--count", type=int, default=200, help="pictures to judge; default: %(default)s")
    comparing.add_argument("--timed", type=int, default=16, help="pictures to time; default: %(default)s")
    for command in (scoring, comparing):
        command.add_argument("--threads", type=int, default=1, help="of the CPU; default: %(default)s")
        command.add_argument("--results", type=Path, help="write what was measured here; `export` takes the scores")
    add_export_options(commands.add_parser("export"))
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = vars(build_parser().parse_args(arguments))
    return in_words(lambda: _run(**options))


def _run(command: str, **options: Any) -> None:
    if command == "train":
        train_par(ParRecipe(**options))
        return
    path = options.pop("results")
    if command == "export":
        print(export_par(results=read_object(path) if path else None, **options))
        return
    results = evaluate_par(**options) if command == "evaluate" else compare_orders(**options)
    if path is not None:
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(results, indent=2) + "\n"))
    print(json.dumps(results, indent=2) if command == "evaluate" else comparison_table(results))


if __name__ == "__main__":
    sys.exit(main())
