"""`sjd benchmark` of a flow: its solvers in passes, seconds, error, and what a judge sees."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..pipelines.families import FLOW
from ..tables import table
from .arguments import CommandError, sampling_options
from .measuring import model_name, show_count

if TYPE_CHECKING:
    from ..benchmark.flow_speed import FlowConfig
    from ..benchmark.journal import Journal
    from ..pipelines import TarFlowPipeline

# Options of `sjd benchmark` that are for models that decode tokens, and what they are where they are not given.
FOREIGN = {"temperature": None, "top_k": None, "top_p": None, "library": False, "fidelity": False}


def check_flow_options(arguments: argparse.Namespace) -> None:
    """Raise `CommandError` for an option that does not apply to flows."""
    for name, absent in FOREIGN.items():
        if getattr(arguments, name) != absent:
            raise CommandError(f"--{name.replace('_', '-')} does not apply to a flow, which draws no tokens.")
    if arguments.windows_given:
        raise CommandError("--windows does not apply to flows; name solvers, as in frontier:window=64.")
    sampling_options(arguments)


def make_config(arguments: argparse.Namespace, pipe: "TarFlowPipeline") -> "FlowConfig":
    """What is not given is both: one picture at a time and a batch, no guidance and the model's own."""
    from ..benchmark.flow_speed import FlowConfig
    from .settings import make_scheduler

    solvers = None
    if arguments.schedulers:
        split = (text.partition(":") for text in dict.fromkeys(arguments.schedulers))
        solvers = tuple(
            make_scheduler(name, None, rest.split(",") if colon else (), FLOW) for name, colon, rest in split
        )
    scale, own = arguments.guidance_scale, pipe.sampling_defaults()["guidance_scale"]
    pictures = arguments.prompts or FlowConfig.pictures
    return FlowConfig(
        model=model_name(arguments.model),
        solvers=solvers,
        pictures=pictures,
        timed=min(pictures, FlowConfig.timed),
        repeats=arguments.repeats,
        batch_sizes=FlowConfig.batch_sizes if arguments.batch_size is None else (arguments.batch_size,),
        guidance_scales=tuple(dict.fromkeys((0.0, own))) if scale is None else (scale,),
        seed=arguments.seed,
    )


def measure(
    pipe: "TarFlowPipeline", arguments: argparse.Namespace, journal: "Journal", progress: bool
) -> dict[str, Any]:
    """The report, claims included. Raises `CommandError` where the flow or a solver does not allow it."""
    from ..benchmark.flow_claims import claims_of
    from ..benchmark.flow_speed import measure_flow

    shown: Callable[..., None] | None = (
        (lambda stage, done, total: show_count(done, total, stage)) if progress else None
    )
    try:
        report = measure_flow(pipe, make_config(arguments, pipe), shown, journal)
    except ValueError as error:
        raise CommandError(error) from error
    return report | {"claims": claims_of(report)}


def print_flow_report(report: dict[str, Any]) -> None:
    """A line of facts, a table per cell, and the claims."""
    from ..benchmark.flow_page import row_of

    print("  ".join(f"{key} {value}" for key, value in report["facts"].items()))
    headers = ("solver", "chosen for", "label", "passes", "token-passes", "seconds", "x sequential", "error")
    headers += ("PSNR worst", "PSNR mean", "object", "same")
    for cell in report["cells"]:
        print(f"\nbatch size {cell['batch_size']}, guidance {cell['guidance_scale']:g}, {cell['pictures']} pictures\n")
        print(table(headers, [row_of(result) for result in cell["results"]], left=3))
    if report["claims"]:
        print()
    for claim in report["claims"]:
        verdict = "holds" if claim["holds"] else "FAILS"
        print(f"{verdict}: {claim['cell']}: {claim['words']}: {claim['measured']}")
