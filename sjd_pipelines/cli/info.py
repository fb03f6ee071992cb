"""`sjd info`: what a model is and what it will need, before anything of it is loaded."""

import argparse
from dataclasses import asdict

from ..bundled import DEFAULT
from .arguments import MODEL_HELP, CommandError, file, place
from .files import check_writable, write_json


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "info",
        help="parameters, memory of the canvas, picture sizes of a model and the passes that published SJD would take",
        description="Describe a model from its configuration alone; no weights are loaded or downloaded. A model that "
        "knows whole words only, as the bundled one, lists them.",
    )
    parser.add_argument("model", metavar="MODEL", type=place, nargs="?", help=f"{MODEL_HELP}; default: {DEFAULT}")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="bfloat16",
        help="number format the model would be loaded in; default: %(default)s",
    )
    parser.add_argument("--json", metavar="FILE", type=file, help="write the description to this file as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        check_writable("--json", arguments.json)
    import torch

    from ..pipelines.info import format_info, inspect_model

    try:
        info = inspect_model(arguments.model, getattr(torch, arguments.dtype))
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot describe the model: {error}") from error
    if arguments.json:
        write_json(arguments.json, asdict(info))
    print(format_info(info))
    return 0
