"""What the commands' parsers share: one-line errors, number types, model, sampling and measuring options."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ..bundled import BUNDLED, DEFAULT
from ..declaration import Setting
from ..disk import expanded
from ..pipelines.inputs import AT_ONCE, SAMPLING, SEED, SIDE, check_sampling
from ..ranges import Range, shown
from ..schedulers.declaration import AUTO, WINDOW

DTYPES = ("float32", "bfloat16", "float16")  # that models work in
MODEL_HELP = (
    "a bundled model ("
    + "; ".join(
        f"{name}: {model.description}" + (f", building on {model.base}" if model.base else "")
        for name, model in BUNDLED.items()
    )
    + "), a folder (./NAME where a bundled model has that name) or a hub id (owner/name)"
)


class CommandError(Exception):
    """Bad input, told to the user in one line; exit status 2."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `CommandError` and takes no abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        for argument in sys.argv[1:] if args is None else args:
            if argument == "--":
                break
            if argument.startswith("--") and argument.endswith("=--"):  # argparse drops these dashes and stumbles
                self.error(f"argument {argument[:-3]}: expected a value, got '--'")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise CommandError(message)


def whole(limits: Range) -> Callable[[str], int]:
    """Argument type: an integer of a range."""

    def read(text: str) -> int:
        value: int | str = text
        with contextlib.suppress(ValueError):
            value = int(text)
        if refusal := limits.refusal(value):
            raise argparse.ArgumentTypeError(refusal)
        return value

    return read


positive = whole(Range(1, 10**6, whole=True))  # what is counted: pictures of a run, repeats, samples
at_once = whole(AT_ONCE)
side = whole(SIDE)
seed = whole(SEED)
threads = whole(Range(1, 4 * (os.cpu_count() or 1), whole=True))  # many more bring torch down


def number(text: str) -> float:
    """Argument type: a number; whoever takes it knows its range."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {shown(text)}") from None


def file(text: str) -> Path:
    """Argument type: the name of a file."""
    if not text or text.endswith("/"):
        raise argparse.ArgumentTypeError(f"must be the name of a file, got {shown(text)}")
    return path(text)


def path(text: str) -> Path:
    """Argument type: the name of a file or a folder."""
    try:
        return expanded(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def place(text: str) -> str:
    """Argument type: what names a model, a file, a folder or a stream; whoever uses it looks what is there."""
    path(text)
    return text


def window(text: str) -> int | str:
    """Argument type: what the setting `window` of some scheduler may be, or `auto`; that scheduler looks again."""
    return _window(text, _ANY_WINDOW)


def _window(text: str, taken: Setting) -> int | str:
    value: int | str = text
    if text != AUTO:
        with contextlib.suppress(ValueError):
            value = int(text)
    if refusal := taken.refusal(value):
        raise argparse.ArgumentTypeError(refusal)
    return value


def windows_or_auto(text: str) -> list[int | str]:
    """Argument type: what a setting `window` may be, separated by commas."""
    return [_window(part, WINDOW) for part in text.split(",")]


def windows(text: str) -> list[int]:
    """Argument type: integers, separated by commas."""
    return [a_window(part) for part in text.split(",")]


a_window = whole(Range(WINDOW.least, WINDOW.most, whole=True))
_ANY_WINDOW = replace(WINDOW, least=0)  # 0 is one of par's


def add_model_options(parser: argparse.ArgumentParser, dtypes: Sequence[str] = DTYPES) -> None:
    """`--model`, `--dtype` with these number formats, and `--device`."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        type=place,
        help=f"{MODEL_HELP}; default: {DEFAULT}",
    )
    parser.add_argument(
        "--dtype",
        choices=dtypes,
        default="float32",
        help="number format of the weights; default: float32",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="where the model runs: cpu, cuda, cuda:1; default: cuda if there is one"
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--guidance-scale",
        metavar="SCALE",
        type=number,
        help="strength of classifier-free guidance; 1 is off; default: the checkpoint's, as for the next three",
    )
    parser.add_argument("--temperature", type=number, metavar="T", help="divides the logits; 0 is greedy")
    parser.add_argument(
        "--top-k", type=whole(SAMPLING["top_k"]), metavar="K", help="sample among the K most likely tokens; 0 is all"
    )
    parser.add_argument(
        "--top-p", type=number, metavar="P", help="sample among the likeliest tokens of total probability P; 1 is all"
    )


def add_drawing_options(parser: argparse.ArgumentParser) -> None:
    """How pictures are drawn: size, batches, scheduler, sampling."""
    parser.add_argument("--height", metavar="PIXELS", type=side, help="of the pictures; default: the model's own")
    parser.add_argument("--width", metavar="PIXELS", type=side, help="of the pictures; default: the model's own")
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=at_once,
        default=1,
        help="pictures drawn at once; changes time and memory, not the pictures; default: %(default)s",
    )
    parser.add_argument(
        "--scheduler",
        metavar="NAME",
        help="scheduler, or solver of a flow, see `sjd schedulers`; default: the checkpoint's",
    )
    parser.add_argument(
        "--window",
        metavar="W",
        type=window,
        help="drafts verified per forward pass, or auto to let speed decide; default: the scheduler's",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="assignments",
        action="append",
        default=[],
        help="another setting of the scheduler or solver named by --scheduler; may be repeated",
    )
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what guidance leads away from")
    add_sampling_options(parser)


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
    parser.add_argument("--json", metavar="FILE", type=file, help="write everything measured to this file")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """How a measurement on a model runs."""
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of the first picture; default: %(default)s")
    parser.add_argument("--threads", metavar="N", type=threads, help="CPU threads; default: torch's own choice")
    parser.add_argument("--quiet", action="store_true", help="no progress on screen")


def sampling_options(arguments: argparse.Namespace) -> dict[str, float]:
    """The sampling options that were given; the checkpoint decides the others.

    Raises:
        CommandError: one is out of range.
    """
    given = {name: getattr(arguments, name) for name in SAMPLING if getattr(arguments, name) is not None}
    try:
        return check_sampling(**given)
    except ValueError as error:
        raise CommandError(error) from error
