"""`sjd`: the command line. One module per command; a new command is one more module in `COMMANDS`.

Parsing imports nothing heavy. A command imports torch and the rest of the package when it runs.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from ..version import __version__
from . import benchmark, comfy, convert, fidelity, generate, info, pass_cost, schedulers, step_cost, verify
from .arguments import CommandError, Parser

# A command module defines `add_parser(commands)`, which sets the default `run`: arguments -> exit status.
# It finds the whole command, as typed, in `arguments.command`.
COMMANDS = (generate, info, schedulers, benchmark, fidelity, verify, step_cost, pass_cost, convert, comfy)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sjd",
        description="Draw pictures with autoregressive image models, several tokens per forward pass.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program name; None takes those of the process.

    Returns:
        Exit status: 0 done, 1 a verdict of `sjd verify` failed, 2 bad input, 130 interrupted.
    """
    try:
        arguments = build_parser().parse_args(argv)
        arguments.command = shlex.join(["sjd", *(sys.argv[1:] if argv is None else argv)])
        return arguments.run(arguments)
    except CommandError as error:
        print(f"sjd: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sjd: interrupted", file=sys.stderr)
        return 130
