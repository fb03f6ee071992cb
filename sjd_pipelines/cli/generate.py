"""`sjd generate`: prompts to picture files."""

import argparse
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..pipelines.families import AUTOREGRESSIVE, FLOW, family_of_pipeline
from ..pipelines.inputs import check_prompt, check_text
from . import flow_pictures, token_pictures
from .arguments import CommandError, add_model_options, add_sampling_options, at_once, positive, seed, window
from .files import check_distinct, check_folder, check_suffix, check_writable, replacing, write_json
from .loading import check_device, load_pipeline, model_kind, show_progress
from .notices import logged_once

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..flows import FlowSolver
    from ..pipelines import SJDAutoRegressivePipeline, TarFlowPipeline
    from ..pipelines.pictures import Recording
    from ..schedulers import DecodingScheduler

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
KINDS: dict[str, ModuleType] = {AUTOREGRESSIVE: token_pictures, FLOW: flow_pictures}
SLUG_LENGTH = 50  # characters; file systems take 255 bytes


@dataclass(frozen=True)
class Picture:
    """One picture to draw."""

    prompt: str
    seed: int  # as --seed or --picture-seeds has it
    path: Path


@dataclass
class Drawing:
    """What has been drawn so far."""

    images: list["Image"] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    recordings: list["Recording"] = field(default_factory=list)


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "generate",
        help="draw pictures of prompts",
        description="Draw pictures of one or several prompts. Picture i of a run with seed S has seed S + i, so that "
        "it can be drawn again alone. Words that the model does not know are named on standard error.",
    )
    parser.add_argument(
        "prompts", metavar="PROMPT", nargs="+", help="what to draw; quote it. Of a flow, a class by name or number"
    )
    add_model_options(parser)
    parser.add_argument(
        "--num-images", metavar="N", type=positive, default=1, help="pictures of each prompt; default: %(default)s"
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=at_once,
        default=1,
        help="pictures drawn at once; changes time and memory, not the pictures; default: %(default)s",
    )
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
    add_output_options(parser)
    parser.set_defaults(run=run)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Where pictures and what is known of them go."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        default=".",
        help="picture file (.png, .jpg, .webp; several pictures are numbered) or folder; "
        "default: this folder, named by prompt and seed; existing files are replaced",
    )
    parser.add_argument("--grid", metavar="FILE", type=Path, help="write all pictures on one sheet as well")
    parser.add_argument("--gif", metavar="FILE", type=Path, help="write an animation of the pictures forming as well")
    parser.add_argument("--stats", metavar="FILE", type=Path, help="write passes and seconds of each picture as JSON")
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar; print the file names alone, warnings aside"
    )


def run(arguments: argparse.Namespace) -> int:
    start = secrets.randbits(32) if arguments.seed is None else arguments.seed
    seeds = arguments.picture_seeds or range(start, start + len(arguments.prompts) * arguments.num_images)
    check_texts(arguments.prompts, arguments.negative_prompt)
    pictures = plan_pictures(arguments.prompts, arguments.num_images, seeds, arguments.output)
    check_outputs(arguments, pictures)

    kind, scheduler = model_kind(arguments.model), None
    if arguments.scheduler is not None:
        from .settings import make_scheduler

        scheduler = make_scheduler(arguments.scheduler, arguments.window, arguments.assignments, kind)
    elif arguments.assignments:
        raise CommandError("--set needs --scheduler: it belongs to the scheduler that you name.")
    KINDS[kind or AUTOREGRESSIVE].call_options(arguments)  # what is wrong with them is said before a model is loaded
    device = check_device(arguments.device)

    with logged_once():
        pipe = load_pipeline(arguments.model, arguments.dtype, device, show_progress(arguments.quiet), kind=None)
        draw_all(pipe, pictures, scheduler, arguments)
    return 0


def draw_all(
    pipe: "SJDAutoRegressivePipeline | TarFlowPipeline",
    pictures: list[Picture],
    scheduler: "DecodingScheduler | FlowSolver | None",
    arguments: argparse.Namespace,
) -> None:
    """Draw and write the pictures batch by batch, then what was asked for beside them."""
    kind = KINDS[family_of_pipeline(type(pipe).__name__).kind]
    if scheduler is not None:
        set_scheduler(pipe, scheduler)
    elif arguments.window is not None:
        pipe.scheduler = with_window(pipe.scheduler, arguments.window)
    options = kind.call_options(arguments)
    kind.check_prompts(pipe, arguments)  # of the last picture, before the first is drawn

    if arguments.seed is None and arguments.picture_seeds is None and not arguments.quiet:
        print(f"seed {pictures[0].seed}")
    drawing = Drawing()
    for first in range(0, len(pictures), arguments.batch_size):
        batch = pictures[first : first + arguments.batch_size]
        draw(pipe, kind, batch, options | seeding(batch, arguments), drawing, record=arguments.gif is not None)
        pictures[0].path.parent.mkdir(exist_ok=True)
        for picture, image, record in zip(batch, drawing.images[first:], drawing.records[first:]):
            with replacing(picture.path) as temporary:
                image.save(temporary)
            print(picture.path if arguments.quiet else f"{picture.path}  {kind.summary(record)}", flush=True)
    write_extras(arguments, pipe, drawing)


def plan_pictures(prompts: list[str], num_images: int, seeds: Sequence[int], output: str) -> list[Picture]:
    """Prompts and file names of a run, each prompt's pictures one after the other.

    Args:
        prompts: what to draw.
        num_images: pictures of each prompt.
        seeds: one for each picture.
        output: a picture file, or a folder (anything without a suffix, ending in a slash, or existing as one).
    """
    total = len(prompts) * num_images
    if seeds[-1] >= 2**63:
        raise CommandError(f"--seed {seeds[0]}: the seeds of {total} pictures must stay below 2**63.")
    if len(seeds) != total:
        raise CommandError(f"--picture-seeds: got {len(seeds)} for {total} pictures; give one for each.")
    path = Path(output).expanduser()
    named = bool(path.suffix) and not output.endswith("/")
    if path.is_dir() and path.suffix.lower() not in PICTURE_SUFFIXES:
        named = False
    pictures = []
    for index in range(total):
        prompt = prompts[index // num_images]
        if not named:
            file = path / f"{slug(prompt)}-{seeds[index]}.png"
        elif total == 1:
            file = path
        else:
            file = path.with_stem(f"{path.stem}-{index:0{len(str(total - 1))}}")
        pictures.append(Picture(prompt, seeds[index], file))
    if named:
        check_suffix("--output", path, PICTURE_SUFFIXES)
        if path.is_dir():
            raise CommandError(f"--output {path}: is a folder; name a file, or end the name with a slash.")
    return pictures


def check_texts(prompts: list[str], negative_prompt: str | None = None) -> None:
    """Raise `CommandError` for a prompt that asks for nothing, or is no text."""
    try:
        for number, prompt in enumerate(prompts, 1):
            check_prompt(number, prompt)
        check_text("negative_prompt", negative_prompt or "")
    except ValueError as error:
        raise CommandError(error) from error


def check_outputs(arguments: argparse.Namespace, pictures: list[Picture]) -> None:
    """Raise `CommandError` for an output that cannot be written."""
    folder = pictures[0].path.parent
    # A folder that is named as such is made if need be, inside one that exists.
    new = folder == Path(arguments.output).expanduser() and not folder.exists()
    check_folder("--output", folder.parent if new else folder)
    for picture in pictures:
        if picture.path.is_dir():
            raise CommandError(f"--output {picture.path}: is a folder; name a file.")
    extras = {"--grid": arguments.grid, "--gif": arguments.gif, "--stats": arguments.stats}
    if arguments.grid:
        check_suffix("--grid", arguments.grid, PICTURE_SUFFIXES)
    if arguments.gif:
        check_suffix("--gif", arguments.gif, (".gif",))
    for option, path in extras.items():
        if path is not None and path.parent.resolve() != folder.resolve():
            check_writable(option, path)
        elif path is not None and path.is_dir():
            raise CommandError(f"{option} {path}: is a folder; name a file.")
    check_distinct([picture.path for picture in pictures] + [path for path in extras.values() if path is not None])


def set_scheduler(pipe: Any, scheduler: Any) -> None:
    """Raises `CommandError` for one of another kind of model, which is known of a hub model only now."""
    try:
        pipe.read_scheduler(scheduler)
    except ValueError as error:
        raise CommandError(error) from error
    pipe.scheduler = scheduler


def with_window(scheduler: Any, window: int | str) -> Any:
    """The checkpoint's scheduler with another window. Raises `CommandError` if it has none or takes no such one."""
    from .settings import check_setting, name_of

    check_setting(type(scheduler), "window")
    try:
        return type(scheduler).from_config(scheduler.config, window=window)
    except ValueError as error:
        raise CommandError(f"scheduler {name_of(type(scheduler))}: {error}") from error


def seeding(batch: list[Picture], arguments: argparse.Namespace) -> dict[str, Any]:
    """What makes a call draw the pictures of its seeds."""
    import torch

    seeds = [picture.seed for picture in batch]
    if arguments.picture_seeds is not None:
        return {"seeds": seeds}
    return {"generator": [torch.Generator().manual_seed(one) for one in seeds]}


def draw(
    pipe: "SJDAutoRegressivePipeline | TarFlowPipeline",
    kind: ModuleType,
    batch: list[Picture],
    options: dict[str, Any],
    drawing: Drawing,
    record: bool,
) -> None:
    """Draw one batch and add it to `drawing`; `record` keeps what it looked like after each pass.

    Raises:
        CommandError: the model does not take these options, lacks a network that its scheduler needs, or gives
            numbers that are not finite.
    """
    from ..pipelines.pictures import Recording

    recording = Recording() if record else None
    try:
        output = pipe([picture.prompt for picture in batch], callback_on_step_end=recording, **options)
    except (ValueError, ArithmeticError) as error:
        raise CommandError(error) from error
    drawing.images += output.images
    drawing.records += kind.records(batch, output.statistics, pipe.scheduler, "seeds" in options)
    if recording is not None:
        drawing.recordings.append(recording)


def write_extras(arguments: argparse.Namespace, pipe: "SJDAutoRegressivePipeline", drawing: Drawing) -> None:
    """Write the sheet, the animation and the statistics that were asked for."""
    from ..pipelines.pictures import contact_sheet, forming_frames, save_animation

    total = len(drawing.images)
    # A row per prompt where each has several pictures, else a square.
    columns = arguments.num_images if 1 < arguments.num_images < total else math.isqrt(total - 1) + 1
    if arguments.grid:
        with replacing(arguments.grid) as temporary:
            contact_sheet(drawing.images, columns).save(temporary)
    if arguments.gif:
        frames = [contact_sheet(pictures, columns) for pictures in forming_frames(pipe, drawing.recordings)]
        with replacing(arguments.gif) as temporary:
            save_animation(frames, temporary)
    if arguments.stats:
        write_json(arguments.stats, drawing.records)
    for path in (arguments.grid, arguments.gif, arguments.stats):
        if path is not None:
            print(path)


def slug(prompt: str) -> str:
    """A file name of a prompt: its words in small letters, joined by hyphens."""
    words = re.findall(r"\w+", prompt.lower())
    return "-".join(words)[:SLUG_LENGTH].strip("-") or "picture"
