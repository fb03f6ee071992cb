"""`sjd step-cost`: what each scheduler costs by itself, without a model."""

import argparse
from dataclasses import asdict

from ..ranges import Range
from ..tables import table
from .arguments import a_window, add_json_option, add_scheduler_names, at_once, whole
from .files import check_writable, write_json

CODEBOOK = Range(2, 2**20, whole=True)  # entries


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "step-cost",
        help="time drafting, verification and redrafting alone, on synthetic laws",
        description="Time each scheduler's plan and step on synthetic laws of a large codebook, without a model.",
    )
    add_scheduler_names(parser)
    parser.add_argument("--window", metavar="W", type=a_window, default=64, help="default: %(default)s")
    parser.add_argument(
        "--codebook-size", metavar="V", type=whole(CODEBOOK), default=16384, help="default: %(default)s"
    )
    parser.add_argument("--batch-size", metavar="B", type=at_once, default=4, help="default: %(default)s")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        check_writable("--json", arguments.json)
    from .settings import check_windows

    check_windows(arguments.schedulers, [arguments.window])
    import torch

    from ..benchmark.machine import machine_facts
    from ..benchmark.step_cost import measure_step_costs

    costs = measure_step_costs(arguments.schedulers, arguments.window, arguments.codebook_size, arguments.batch_size)
    if arguments.json:
        facts = machine_facts(torch.device("cpu"))
        write_json(
            arguments.json,
            {"command": arguments.command, "facts": facts, "costs": [asdict(cost) for cost in costs]},
        )
    rows = [
        (
            cost.name,
            cost.label,
            str(cost.window),
            f"{cost.slots:.1f}",
            f"{cost.tokens:.2f}",
            f"{1000 * cost.plan:.2f}",
            f"{1000 * cost.step:.2f}",
        )
        for cost in costs
    ]
    print(table(("name", "label", "window", "slots", "tokens/pass", "plan ms", "step ms"), rows, left=2))
    return 0
