"""`sjd draw`: a table of prompts to a folder of pictures, on all processors, and on from where it was stopped."""

import argparse
from pathlib import Path

from ..jobs.driver import Job, Workers, folder_status, run_job
from ..jobs.folder import SHEET, JobError, JobFolder
from ..jobs.processes import Processes
from ..jobs.table import Table
from ..jobs.work import Work
from ..pipelines.families import AUTOREGRESSIVE
from ..pipelines.inputs import check_size, check_text
from ..ranges import Range
from .arguments import CommandError, add_drawing_options, add_model_options, path, place, threads, whole
from .generate import check_kind, read_defaults
from .loading import model_kind, show_progress
from .measuring import show_count
from .notices import Notices


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "draw",
        help="draw a table of prompts into a folder; repeat the command to go on after an interruption",
        description="Draw the pictures of a table of prompts: a prompt on every line, JSON lines (.jsonl), .csv or "
        ".parquet, with the columns prompt, id, negative_prompt, seed, picture_seed, height, width and settings. "
        "Whatever stops it, the same command goes on from there. What can't be drawn is recorded with the reason; "
        "words that the model does not know are named on standard error.",
    )
    parser.add_argument("job", metavar="JOB", nargs="?", type=place, help="the table, a file")
    parser.add_argument("-o", "--output", metavar="OUT", type=path, help="folder of the job, new or begun before")
    parser.add_argument("--status", metavar="OUT", type=path, help="say how far the job in this folder is")
    parser.add_argument(
        "--workers",
        metavar="N",
        type=whole(Range(1, 1024, whole=True)),
        default=1,
        help="processes that draw, each with a model of its own, on the GPUs in turn; the pictures do not depend on "
        "their number; default: %(default)s",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="have --workers N actors of a Ray cluster draw, a GPU each if it has some: auto, local or "
        "ray://HOST:PORT; OUT must be a folder that all its nodes share",
    )
    parser.add_argument(
        "--threads", metavar="N", type=threads, default=1, help="CPU threads of each of them; default: %(default)s"
    )
    parser.add_argument("--retry-failed", action="store_true", help="try those pictures again that could not be drawn")
    add_model_options(parser)
    add_drawing_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary on screen")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.status is not None:
        if arguments.job is not None or arguments.output is not None:
            raise CommandError("--status takes nothing else: it looks at a folder and draws nothing.")
        return show_status(arguments.status)
    if arguments.job is None or arguments.output is None:
        raise CommandError("the following arguments are required: JOB and -o, or --status")
    try:
        check_text("negative_prompt", arguments.negative_prompt or "")
        check_size(arguments.height, arguments.width)
        folder = JobFolder.check(arguments.output)
    except (ValueError, JobError) as error:
        raise CommandError(str(error)) from error
    kind = model_kind(arguments.model)
    defaults = read_defaults(arguments, kind)
    check_kind(kind or AUTOREGRESSIVE, defaults)
    try:
        table = Table(arguments.job)
    except OSError as error:
        raise CommandError(f"{arguments.job}: {error.strerror or error}.") from error
    with table:
        work = Work(folder.path.absolute(), arguments.model, arguments.dtype, arguments.device, arguments.threads)
        return draw(Job(table, work, defaults, arguments.batch_size), arguments)


def draw(job: Job, arguments: argparse.Namespace) -> int:
    """Exit status: 0 if all pictures are there, 1 if some could not be drawn."""
    progress = show_count_of_pictures if show_progress(arguments.quiet) else None
    try:
        workers = make_workers(job, arguments)
        status = run_job(job, workers, arguments.retry_failed, progress, Notices())
    except (JobError, ValueError) as error:
        raise CommandError(str(error)) from error
    if not arguments.quiet:
        print(status)
        if status.drawn:
            print(arguments.output / SHEET)
    return 1 if status.failed else 0


def make_workers(job: Job, arguments: argparse.Namespace) -> Workers:
    """Raises `JobError` if there is no such cluster."""
    if arguments.ray is None:
        return Processes(job.work, arguments.workers)
    from ..jobs.ray_data import Actors

    return Actors(job.work, arguments.workers, arguments.ray)


def show_status(folder: Path) -> int:
    try:
        print(folder_status(folder))
    except JobError as error:
        raise CommandError(str(error)) from error
    return 0


def show_count_of_pictures(done: int, total: int) -> None:
    show_count(done, total, "pictures")
