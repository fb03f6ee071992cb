"""What the commands' parsers share: one-line errors, number types, model, sampling and measuring options."""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..bundled import BUNDLED, DEFAULT
from ..schedulers.declaration import AUTO, WINDOW

MODEL_HELP = (
    "a bundled model ("
    + "; ".join(f"{name}: {model.description}" for name, model in BUNDLED.items())
    + "), a folder (./NAME where a bundled model has that name) or a hub id (owner/name)"
)
SAMPLING = ("guidance_scale", "temperature", "top_k", "top_p")


class CommandError(Exception):
    """Bad input, told to the user in one line; exit status 2."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `CommandError` and takes no abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise CommandError(message)


def positive(text: str) -> int:
    """Argument type: an integer of at least 1."""
    return _integer(text, 1)


def window(text: str) -> int | str:
    """Argument type: what a setting `window` may be, or `auto`."""
    value: int | str = text
    if text != AUTO:
        with contextlib.suppress(ValueError):
            value = int(text)
    if refusal := WINDOW.refusal(value):
        raise argparse.ArgumentTypeError(refusal)
    return value


def windows_or_auto(text: str) -> list[int | str]:
    """Argument type: what a setting `window` may be, separated by commas."""
    return [window(part) for part in text.split(",")]


def windows(text: str) -> list[int]:
    """Argument type: integers of at least 1, separated by commas."""
    return [positive(part) for part in text.split(",")]


def seed(text: str) -> int:
    """Argument type: an integer from 0 to 2**63 - 1."""
    value = _integer(text, 0)
    if value >= 2**63:
        raise argparse.ArgumentTypeError(f"must be below 2**63, got {text}")
    return value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help=f"{MODEL_HELP}; default: {DEFAULT}",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="number format of the weights; default: %(default)s",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="where the model runs: cpu, cuda, cuda:1; default: cuda if there is one"
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--guidance-scale",
        metavar="SCALE",
        type=float,
        help="strength of classifier-free guidance; 1 is off; default: the checkpoint's, as for the next three",
    )
    parser.add_argument("--temperature", type=float, metavar="T", help="divides the logits; 0 is greedy")
    parser.add_argument("--top-k", type=int, metavar="K", help="sample among the K most likely tokens; 0 is all")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="sample among the likeliest tokens of total probability P; 1 is all"
    )


def add_scheduler_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--schedulers", metavar="NAME", nargs="+", help="which schedulers, see `sjd schedulers`; default: all"
    )


def add_windows(parser: argparse.ArgumentParser, default: Sequence[int]) -> None:
    """One list of lists: numbers may be separated by commas or blanks."""
    parser.add_argument(
        "--windows",
        metavar="W,W,...",
        type=windows_or_auto,
        nargs="+",
        default=[default],
        help="drafts verified per pass, each with each scheduler, or auto for those that can choose; "
        f"default: {','.join(map(str, default))}",
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything measured to this file")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """How a measurement on a model runs."""
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of the first picture; default: %(default)s")
    parser.add_argument("--threads", metavar="N", type=positive, help="CPU threads; default: torch's own choice")
    parser.add_argument("--quiet", action="store_true", help="no progress on screen")


def sampling_options(arguments: argparse.Namespace) -> dict[str, float]:
    """The sampling options that were given; the checkpoint decides the others.

    Raises:
        CommandError: one is out of range.
    """
    from ..pipelines.inputs import check_sampling

    given = {name: getattr(arguments, name) for name in SAMPLING if getattr(arguments, name) is not None}
    try:
        check_sampling(**given)
    except ValueError as error:
        raise CommandError(error) from error
    return given


def _integer(text: str, minimum: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise argparse.ArgumentTypeError(f"must be an integer of at least {minimum}, got {text!r}")
    return value
