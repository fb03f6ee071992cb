"""`sjd generate`: prompts to picture files."""

import argparse
import secrets
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..jobs.batches import POOL, pack
from ..jobs.rows import SCHEDULER, Row
from ..jobs.session import KINDS
from ..pipelines.families import AUTOREGRESSIVE, FLOW
from ..pipelines.inputs import check_prompt, check_size, check_text
from .arguments import (
    CommandError,
    add_drawing_options,
    add_model_options,
    file,
    place,
    positive,
    sampling_options,
    seed,
)
from .loading import check_device, load_pipeline, model_kind, show_progress
from .outputs import Outputs, check_outputs
from .plan import Plan, Source, listed, of_rows, of_table

if TYPE_CHECKING:
    from ..jobs.again import Remembered
    from ..jobs.session import Session

# What a picture that is drawn again has its own of.
REMEMBERED = (
    *("num_images", "seed", "picture_seeds", "scheduler", "window", "assignments", "negative_prompt", "height"),
    *("width", "guidance_scale", "temperature", "top_k", "top_p", "dtype"),
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "generate",
        help="draw pictures of prompts",
        description="Draw pictures of one or several prompts. Picture i of a run with seed S has seed S + i, so that "
        "it can be drawn again alone. Words that the model does not know are named on standard error.",
    )
    parser.add_argument(
        "prompts", metavar="PROMPT", nargs="*", help="what to draw; quote it. Of a flow, a class by name or number"
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        dest="table",
        type=place,
        help="draw what is in a file, or - for standard input: a prompt on every line, JSON lines, or a table "
        "(.csv, .parquet), as `sjd draw` takes it; files are named by id",
    )
    parser.add_argument(
        "--like",
        metavar="PICTURE",
        type=file,
        help="draw a picture again, token for token, by what is written in its PNG (of `sjd` or of ComfyUI)",
    )
    add_model_options(parser)
    parser.set_defaults(dtype=None)  # a picture that is drawn again has its own
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the passes while the first picture is drawn; worth it for many pictures, or on a GPU. --stats "
        "has the seconds it took",
    )
    parser.add_argument("--num-images", metavar="N", type=positive, help="pictures of each prompt; default: 1")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", metavar="S", type=seed, help="seed of the first picture; default: random, printed")
    seeds.add_argument(
        "--picture-seeds",
        metavar="N",
        type=seed,
        nargs="+",
        help="draw pictures again by the seeds that Python's statistics.seeds or a picture_seed of --stats recorded, "
        "one for each; --seed S is another number, the generator's that gave the picture its own",
    )
    add_drawing_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Where pictures and what is known of them go."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        type=place,
        default=".",
        help="picture file (.png, .jpg, .webp; several pictures are numbered) or folder, or - for standard output; "
        "default: this folder, named by prompt and seed; existing files are replaced",
    )
    parser.add_argument("--grid", metavar="FILE", type=file, help="write all pictures on one sheet as well")
    parser.add_argument("--gif", metavar="FILE", type=file, help="write an animation of the pictures forming as well")
    parser.add_argument("--stats", metavar="FILE", type=file, help="write passes and seconds of each picture as JSON")
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar; print the file names alone, warnings aside"
    )


def run(arguments: argparse.Namespace) -> int:
    remembered = check_source(arguments)
    check_texts(arguments)
    with closing(make_source(arguments, remembered)) as source:
        draw_source(source, remembered, arguments)
    return 0


def draw_source(source: Source, remembered: "Remembered | None", arguments: argparse.Namespace) -> None:
    """Check everything that can be known before, load the model and draw."""
    plan = Plan(source, arguments.output)
    check_outputs(arguments, plan)
    kind = model_kind(arguments.model)
    plan.defaults = read_defaults(arguments, kind)
    check_kind(kind or AUTOREGRESSIVE, plan.defaults)
    check_of_tokens(kind, arguments)
    device = check_device(arguments.device)
    dtype = arguments.dtype or "float32"
    pipe = load_pipeline(arguments.model, dtype, device, show_progress(arguments.quiet), kind=None)
    from ..jobs.session import Session

    if arguments.compile:
        pipe.enable_compile()
    try:
        session = Session(pipe, arguments.model)
        if remembered is not None:
            plan.source = of_rows(remembered.rows_for(pipe))
        check_rows(session, plan, arguments.table)  # the last, before the first is drawn
    except ValueError as error:
        raise CommandError(error) from error
    draw_all(session, plan, arguments)


def check_source(arguments: argparse.Namespace) -> "Remembered | None":
    """What the picture of --like remembers, its model among the arguments from here on.

    Raises:
        CommandError: there is nothing to draw, or too much; or the picture says nothing that can be drawn.
    """
    sources = [bool(arguments.prompts), arguments.table is not None, arguments.like is not None]
    if not any(sources):
        raise CommandError("the following arguments are required: PROMPT, --prompts or --like")
    if sum(sources) > 1:
        raise CommandError("PROMPT, --prompts and --like exclude each other; give one of them.")
    if arguments.table is not None and arguments.picture_seeds is not None:
        raise CommandError("--picture-seeds is for prompts on the command line; a table has a column picture_seed.")
    if arguments.like is None:
        return None
    for name in REMEMBERED:
        if getattr(arguments, name) not in (None, []):
            option = {"assignments": "set"}.get(name, name).replace("_", "-")
            raise CommandError(f"--{option} does not go with --like: the picture has its own.")
    from ..jobs.again import read_picture

    try:
        remembered = read_picture(arguments.like)
    except OSError as error:
        raise CommandError(f"--like {arguments.like}: {error.strerror or error}.") from error
    except ValueError as error:
        raise CommandError(f"--like {error}") from error
    if arguments.model is None and remembered.model is None:
        raise CommandError(
            f"--like {arguments.like}: was drawn by a model in a folder, {remembered.name}; name it with --model."
        )
    arguments.model = arguments.model or remembered.model
    arguments.dtype = remembered.dtype
    return remembered


def check_texts(arguments: argparse.Namespace) -> None:
    """Raise `CommandError` for a prompt that asks for nothing, or is no text; or for no size."""
    try:
        for number, prompt in enumerate(arguments.prompts, 1):
            check_prompt(number, prompt)
        check_text("negative_prompt", arguments.negative_prompt or "")
        check_size(arguments.height, arguments.width)
    except ValueError as error:
        raise CommandError(error) from error


def make_source(arguments: argparse.Namespace, remembered: "Remembered | None") -> Source:
    """What to draw. Raises `CommandError` for a table that can't be drawn."""
    count = arguments.num_images or 1
    if remembered is not None:
        return of_rows(remembered.rows)
    if arguments.table is not None:
        return of_table(arguments.table, count, arguments.seed)
    start = secrets.randbits(32) if arguments.seed is None else arguments.seed
    return listed(arguments.prompts, count, start, arguments.picture_seeds)


def read_defaults(arguments: argparse.Namespace, kind: str | None) -> Row:
    """What holds for rows that do not say otherwise. Raises `CommandError` for what the model can't take."""
    settings: dict[str, Any] = dict(sampling_options(arguments))
    if arguments.scheduler is not None:
        from .settings import read_scheduler

        settings[SCHEDULER] = read_scheduler(arguments.scheduler, arguments.window, arguments.assignments, kind)
    elif arguments.assignments:
        raise CommandError("--set needs --scheduler: it belongs to the scheduler that you name.")
    elif arguments.window is not None:
        settings[SCHEDULER] = {"window": arguments.window}
    return Row(
        "",
        "",
        negative_prompt=arguments.negative_prompt,
        height=arguments.height,
        width=arguments.width,
        settings=settings,
    )


def check_kind(kind: str, defaults: Row) -> None:
    """Raise `CommandError` for an option that is for models of another kind."""
    try:
        KINDS[kind].check_kind(defaults)
    except ValueError as error:
        name, words = str(error).split(" ", 1)
        raise CommandError(f"--{name.replace('_', '-')} {words}") from error


def check_of_tokens(kind: str | None, arguments: argparse.Namespace) -> None:
    """The same for the options that `sjd generate` alone has."""
    if kind == FLOW and arguments.gif is not None:
        raise CommandError("--gif does not apply to a flow, which draws no tokens.")
    if kind == FLOW and arguments.compile:
        raise CommandError("--compile does not apply to a flow, which draws no tokens.")


def check_rows(session: "Session", rows: Iterable[Row], table: str | None) -> None:
    """Raise `CommandError` for the first row that the model can't draw, which is named if it is one of a table."""
    last = None
    for row in rows:
        asked = (row.prompt, row.negative_prompt, *row.drawn_together)
        if asked == last:
            continue
        last = asked
        try:
            session.check(row)
        except ValueError as error:
            raise CommandError(error if table is None else f"{table}, row {row.id}: {error}") from error


def draw_all(session: "Session", plan: Plan, arguments: argparse.Namespace) -> None:
    """Draw and write the pictures batch by batch; what is written beside them holds what is finished, come what may.

    Raises:
        CommandError: the model gives numbers that are not finite, or a file can't be written.
    """
    chosen = bool(arguments.prompts) and arguments.seed is None and arguments.picture_seeds is None
    if chosen and not arguments.quiet and not plan.to_standard_output:
        print(f"seed {next(iter(plan)).seed}")
    size = arguments.batch_size
    with Outputs(arguments, session, plan) as outputs:
        for batch in pack(plan, size, POOL if arguments.table is not None else size):
            recording = outputs.recording(batch.rows[0])
            try:
                drawn = session.draw(batch.rows, recording)
            except (ValueError, ArithmeticError) as error:
                raise CommandError(error) from error
            outputs.write(drawn, recording)
