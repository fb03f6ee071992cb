"""`python -m sjd_pipelines.training.par`: what makes the bundled class-conditional model.

train      train it, or train on; a run stops after --minutes and goes on with the same command
"""

from __future__ import annotations

import argparse
from pathlib import Path

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
    training.add_argument("--scale", type=float, default=1.0, help="of the pictures of every phase; default: 1")
    training.add_argument("--batches", type=int, default=1, help="factor on the batch sizes; default: 1")
    training.add_argument("--minutes", type=float, default=0.0, help="0 is to the end of the phases; default")
    training.add_argument("--threads", type=int, default=1, help="of a CPU; default: %(default)s")
    training.add_argument("--device", default="cpu", help="cpu or cuda; default: %(default)s")
    training.add_argument("--save-minutes", type=float, default=5.0, help="default: %(default)s")
    training.add_argument("--seed", type=int, default=0)
    for command in (training,):
        command.add_argument("--folder", type=Path, required=True, help="the run's folder")
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = vars(build_parser().parse_args(arguments))
    options.pop("command")
    train_par(ParRecipe(**options))


if __name__ == "__main__":
    main()
