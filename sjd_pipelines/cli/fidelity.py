"""`sjd fidelity`: do the pictures show what their captions say, with every scheduler?"""

import argparse
from datetime import date
from functools import partial
from typing import Any

from ..tables import table
from .arguments import (
    CommandError,
    add_json_option,
    add_model_options,
    add_run_options,
    add_sampling_options,
    add_scheduler_names,
    at_once,
    positive,
    sampling_options,
)
from .files import write_json
from .loading import check_device, load_pipeline, show_progress
from .measuring import model_name, open_journal, show_count, torch_threads

SCORES = ("object", "count", "background", "relation", "all")


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "fidelity",
        help="judge pictures of held-out captions by every scheduler (bundled checkpoint)",
        description="Draw captions that were never trained on with every scheduler, same captions and seeds for all, "
        "and judge the pictures by template matching. With --json every batch is saved as it ends, and the same "
        "command goes on where it was interrupted.",
    )
    add_model_options(parser)
    add_scheduler_names(parser)
    parser.add_argument(
        "--per-kind",
        metavar="N",
        type=positive,
        default=50,
        help="pictures of each kind of caption: single, count, relation; default: %(default)s",
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=at_once, default=25, help="pictures drawn at once; default: %(default)s"
    )
    add_sampling_options(parser)
    add_json_option(parser)
    add_run_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    journal = open_journal("--json", arguments.json)
    sampling = sampling_options(arguments)
    from .settings import check_names

    check_names(arguments.schedulers)
    device = check_device(arguments.device)
    progress = show_progress(arguments.quiet)
    with torch_threads(arguments.threads):
        pipe = load_pipeline(arguments.model, arguments.dtype, device, progress)
        pipe.set_progress_bar_config(disable=True)
        try:
            report = measure(pipe, arguments, sampling, journal, show_count if progress else None)
        except ValueError as error:
            raise CommandError(error) from error
    if arguments.json:
        numbers = {"command": arguments.command, "created": date.today().isoformat()} | report
        write_json(arguments.json, numbers)
    rows = [_row(name, "", "", scores) for name, scores in report["ceilings"].items()]
    for result in report["schedulers"]:
        for kind, scores in result["scores"].items():
            rows.append(_row(result["name"], kind, f"{result['passes_by_kind'][kind]:.1f}", scores))
    print(table(("pictures", "kind", "passes", "n", *SCORES), rows, left=2))
    for name, reason in report["skipped"].items():
        print(f"left out: {name}, {reason}")
    return 0


def measure(pipe: Any, arguments: argparse.Namespace, sampling: dict[str, float], journal: Any, progress: Any) -> dict:
    """Everything that `--json` writes."""
    from ..benchmark.contenders import at_defaults, labels_at
    from ..benchmark.machine import pipeline_facts
    from ..benchmark.prompt_fidelity import can_be_judged, measure_fidelity
    from ..emoji.judge import ceilings
    from ..pipelines.pictures import render_tokens

    if not can_be_judged(pipe):
        raise ValueError("Only pictures of the bundled checkpoint's world can be judged.")
    contenders = at_defaults(arguments.schedulers)
    skipped = {contender.name: reason for contender in contenders if (reason := contender.missing(pipe))}
    contenders = [contender for contender in contenders if contender.name not in skipped]
    facts = {"model": model_name(arguments.model)} | pipeline_facts(pipe)
    method = {
        "per_kind": arguments.per_kind,
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "sampling": pipe.sampling_defaults() | sampling,
    }
    labels = labels_at(contenders, method["sampling"]["temperature"])
    journal.begin({"facts": facts, "method": method, "contenders": labels})
    return {
        "facts": facts,
        "method": method,
        "skipped": skipped,
        "ceilings": journal.measure(
            "ceilings", ceilings, partial(render_tokens, pipe), arguments.per_kind, arguments.seed
        ),
        "schedulers": measure_fidelity(
            pipe,
            contenders,
            arguments.per_kind,
            journal,
            arguments.seed,
            arguments.batch_size,
            sampling,
            progress,
        ),
    }


def _row(name: str, kind: str, passes: str, scores: dict[str, float]) -> list[str]:
    rates = (f"{scores[score]:.1%}" if score in scores else "-" for score in SCORES)
    return [name, kind, passes, str(scores["n"]), *rates]
