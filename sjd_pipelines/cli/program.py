"""The commands of `sjd`. One module per command; a new command is one more name in `COMMANDS`.

Parsing imports nothing heavy. A command imports torch and the rest of the package when it runs.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from ..version import __version__
from .arguments import CommandError, Parser
from .notices import logged_once

# A command's module defines `add_parser(commands)`, which sets the default `run`: arguments -> exit status.
# It finds the whole command, as typed, in `arguments.command`.
COMMANDS = (
    "generate",
    "draw",
    "info",
    "schedulers",
    "benchmark",
    "fidelity",
    "verify",
    "step_cost",
    "pass_cost",
    "operations",
    "convert",
    "comfy",
)
LONGEST_WORD = 400  # characters of a message without a blank; a path may be long


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sjd",
        description="Draw pictures with autoregressive image models, several tokens per forward pass.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        import_module(f".{command}", __package__).add_parser(commands)
    return parser


def run(argv: Sequence[str] | None) -> int:
    """Run one command; arguments and exit status are those of `main`, which sees to interrupts and closed pipes."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")  # a name need not be text
    try:
        arguments = build_parser().parse_args(argv)
        arguments.command = shlex.join(["sjd", *(sys.argv[1:] if argv is None else argv)])
        with logged_once():
            return arguments.run(arguments)
    except CommandError as error:
        print(f"sjd: error: {_one_line(error)}", file=sys.stderr)
        return 2
    finally:
        if sys.stdout is not None:  # it was closed before Python began
            sys.stdout.flush()


def _one_line(error: CommandError) -> str:
    """A message without line breaks, and without the middle of what is absurdly long."""
    text = " ".join(str(error).split())
    return re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: f"{word[0][:40]}…{word[0][-20:]}", text)
