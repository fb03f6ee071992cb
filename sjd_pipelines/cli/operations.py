"""`sjd operations`: how many operations a pass of each scheduler takes, by part."""

import argparse
from dataclasses import asdict

from ..tables import table
from .arguments import add_json_option, add_model_options, add_scheduler_names
from .files import check_writable, write_json
from .loading import check_device, load_pipeline
from .measuring import model_name
from .settings import check_names

PROMPT = "a red dog left of a blue car"


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "operations",
        help="count the operations of a pass by part: transformer, sampling, scheduler, companions",
        description="Count the operations of passes in the middle of a picture, on the way that a GPU takes: each is "
        "a launch unless passes are compiled. Views are left out.",
    )
    add_scheduler_names(parser)
    add_model_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        check_writable("--json", arguments.json)
    check_names(arguments.schedulers)
    device = check_device(arguments.device)
    pipe = load_pipeline(arguments.model, arguments.dtype, device, progress=False)
    from ..benchmark.operations import PARTS, count_operations
    from ..schedulers import SCHEDULERS

    layout = pipe.image_layout(None, None)
    made = {name: SCHEDULERS[name]() for name in arguments.schedulers or SCHEDULERS}
    suited = {name: one for name, one in made.items() if one.unsuited(layout, pipe.companions()) is None}
    prompt = "0" if pipe.class_count else PROMPT
    counted = count_operations(pipe, suited, [prompt], pipe.prepare_sampling())
    if arguments.json:
        write_json(
            arguments.json,
            {
                "command": arguments.command,
                "model": model_name(arguments.model),
                "operations": [asdict(one) for one in counted],
            },
        )
    rows = [
        (
            one.scheduler,
            *(f"{one.parts[part]:.0f}" for part in PARTS),
            f"{sum(one.parts.values()):.0f}",
        )
        for one in counted
    ]
    print(table(("name", *PARTS, "all"), rows))
    return 0
