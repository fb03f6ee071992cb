"""`python -m sjd_pipelines.training`: everything that made the bundled checkpoint, step by step or at once.

    glyphs       draw the glyph sheet from NotoColorEmoji.ttf, and cluster its patches into tokens
    transformer  train the autoregressive transformer (under torchrun for several processes)
    pixels       train the pixel decoder, or the encoder
    evaluate     draw held-out captions and score them
    export       write the bundled folder
    drafter      train a draft model for a pipeline, the bundled one unless told otherwise
    reviser      train a draft reviser for a pipeline, the bundled one unless told otherwise
    add-drafter, add-reviser
                 write the trained network into a pipeline's folder
    fast-prompts write captions that `emoji-fast` is distilled on, see emoji_fast.py
    fast-evaluate
                 measure students beside their teacher, part by part; the same command goes on
    fast-export  write a student as the bundled folder
    restore      make a run's folder of an exported checkpoint, to train on
    all          transformer, pixels, evaluate and export, in this order

The first command is needed only to change the glyphs: the sheet and its tokens are part of the package.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..disk import read_object
from ..emoji.codes import build_table
from ..emoji.glyphs import make_sheet
from ..emoji.scenes import KINDS
from ..learning.runs import in_words, write_atomically
from ..schedulers import SCHEDULERS
from .batches import MIXED
from .drafter import DrafterRecipe, export_drafter, train_drafter
from .emoji_fast import write_prompts
from .evaluation import evaluate
from .export import BUNDLED, SAMPLING, export, restore
from .fast_evaluation import PARTS, Evaluation
from .fast_export import export_fast
from .pixels import PixelRecipe, train_pixels
from .reviser import ReviserRecipe, export_reviser, train_reviser
from .transformer import TransformerRecipe, train_transformer


def add_recipe(parser: argparse.ArgumentParser, recipe: type) -> None:
    """One option per field of a recipe, with the recipe's default; options not given are left to the recipe."""
    words = recipe.words()
    for field in fields(recipe):
        option = "--" + field.name.replace("_", "-")
        if field.name == "folder":
            parser.add_argument(option, type=Path, required=True, help="the run's folder")
        elif field.name != "side":
            parser.add_argument(
                option,
                type=type(field.default),
                default=argparse.SUPPRESS,
                help="; ".join([*([words[field.name]] if field.name in words else []), f"default: {field.default!r}"]),
            )


def add_fast_commands(commands: argparse._SubParsersAction) -> None:
    """The commands of `emoji-fast`."""
    captions = commands.add_parser("fast-prompts")
    captions.add_argument("--file", type=Path, required=True)
    captions.add_argument("--count", type=int, default=6000, help="default: %(default)s")
    captions.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    captions.add_argument(
        "--mix", nargs=len(KINDS), type=float, default=MIXED, metavar="SHARE", help=f"shares of {', '.join(KINDS)}"
    )
    captions.add_argument("--plain", action="store_true", help="the main phrasing alone")
    measuring = commands.add_parser("fast-evaluate")
    measuring.add_argument("--folder", type=Path, required=True, help="for the figures")
    measuring.add_argument("--models", nargs="+", default=[], help="students: names, or folders")
    measuring.add_argument("--pictures", type=int, default=Evaluation.pictures, help="default: %(default)s")
    measuring.add_argument("--per-kind", type=int, default=Evaluation.per_kind, help="judged; default: %(default)s")
    measuring.add_argument("--captions-seed", type=int, default=Evaluation.captions_seed, help="default: %(default)s")
    measuring.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    measuring.add_argument("--threads", type=int, default=1)
    writing = commands.add_parser("fast-export")
    writing.add_argument("--adapter", type=Path, required=True, help="the student's folder")
    writing.add_argument("--runs", type=Path, nargs="+", required=True, help="folders it was distilled in, in order")
    writing.add_argument("--figures", type=Path, required=True, help="what fast-evaluate has written")
    writing.add_argument("--target", type=Path, help="default: the bundled folder")
    writing.add_argument("--options", action="append", default=[], help="of each run, once for each, for the card")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sjd_pipelines.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("glyphs").add_argument("--font", type=Path, required=True, help="NotoColorEmoji.ttf")
    add_recipe(commands.add_parser("transformer"), TransformerRecipe)
    pixels = commands.add_parser("pixels")
    pixels.add_argument("--side", choices=("decoder", "encoder"), default="decoder")
    add_recipe(pixels, PixelRecipe)
    scoring = commands.add_parser("evaluate")
    scoring.add_argument("--folder", type=Path, required=True, help="the run's folder")
    scoring.add_argument("--per-kind", type=int, default=200, help="pictures per kind; default: %(default)s")
    scoring.add_argument("--guidance-scale", type=float, default=SAMPLING["guidance_scale"])
    scoring.add_argument("--temperature", type=float, default=SAMPLING["temperature"])
    scoring.add_argument("--top-p", type=float, default=SAMPLING["top_p"])
    scoring.add_argument("--seed", type=int, default=0)
    scoring.add_argument(
        "--schedulers", nargs="+", choices=SCHEDULERS, default=["autoregressive"], help="default: %(default)s"
    )
    scoring.add_argument("--threads", type=int, default=1)
    scoring.add_argument("--device", default="cpu", help="cpu or cuda; default: %(default)s")
    scoring.add_argument("--grid", type=Path, help="write a sheet of sample pictures here")
    scoring.add_argument("--results", type=Path, help="write the scores here, for `export`")
    writing = commands.add_parser("export")
    writing.add_argument("--folder", type=Path, required=True, help="the run's folder")
    writing.add_argument("--target", type=Path, default=BUNDLED)
    writing.add_argument("--results", type=Path, help="scores written by `evaluate`; default: those already in target")
    add_recipe(commands.add_parser("drafter"), DrafterRecipe)
    add_recipe(commands.add_parser("reviser"), ReviserRecipe)
    for name in ("add-drafter", "add-reviser"):
        adding = commands.add_parser(name)
        adding.add_argument("--folder", type=Path, required=True, help="the run's folder")
        adding.add_argument("--target", type=Path, default=BUNDLED, help="default: the bundled checkpoint")
    add_fast_commands(commands)
    restoring = commands.add_parser("restore")
    restoring.add_argument("--folder", type=Path, required=True, help="the new run's folder")
    restoring.add_argument("--source", type=Path, default=BUNDLED, help="default: the bundled checkpoint")
    everything = commands.add_parser("all")
    everything.add_argument("--folder", type=Path, required=True, help="the run's folder")
    everything.add_argument("--target", type=Path, default=BUNDLED)
    everything.add_argument("--processes", type=int, default=1, help="for the transformer; default: %(default)s")
    everything.add_argument("--device", default="cpu", help="for the transformer; default: %(default)s")
    everything.add_argument("--pixel-minutes", type=float, default=30, help="for each side; default: %(default)s")
    return parser


def run_all(folder: Path, target: Path, processes: int, device: str, pixel_minutes: float) -> None:
    """The whole recipe; the transformer trains in `processes` single-threaded processes.

    Interrupted, the same command goes on where the transformer was; see `phases` for how long it takes.
    """
    launch = [sys.executable, "-m"]
    if processes > 1:
        launch += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    train = ["sjd_pipelines.training", "transformer", "--folder", str(folder), "--device", device]
    subprocess.run([*launch, *train], check=True)
    for side in ("decoder", "encoder"):
        train_pixels(
            PixelRecipe(folder, side, minutes=pixel_minutes, decay_minutes=pixel_minutes / 3, threads=processes)
        )
    export(folder, target, evaluate(folder, threads=processes))


def main(arguments: list[str] | None = None) -> int:
    options = vars(build_parser().parse_args(arguments))
    return in_words(lambda: _run(**options))


def _run(command: str, **options: Any) -> None:
    if command == "glyphs":
        print(make_sheet(options["font"]))
        print(build_table())
    elif command == "transformer":
        if not train_transformer(TransformerRecipe.on(options.pop("device", "cpu"), **options)):
            sys.exit("Stopped before the last phase was over; the same command goes on.")
    elif command == "pixels":
        train_pixels(PixelRecipe(**options))
    elif command == "evaluate":
        path = options.pop("results")
        results = evaluate(**options)
        if path is not None:
            write_atomically(path, lambda temporary: temporary.write_text(json.dumps(results, indent=2) + "\n"))
        print(json.dumps(results, indent=2))
    elif command == "export":
        path = options.pop("results")
        print(export(results=read_object(path) if path else None, **options))
    elif command == "drafter":
        train_drafter(DrafterRecipe(**options))
    elif command == "add-drafter":
        print(export_drafter(**options))
    elif command == "reviser":
        train_reviser(ReviserRecipe(**options))
    elif command == "add-reviser":
        print(export_reviser(**options))
    elif command == "fast-prompts":
        print(write_prompts(**options))
    elif command == "fast-evaluate":
        Evaluation(**options).run()
    elif command == "fast-export":
        print(export_fast(**options))
    elif command == "restore":
        print(restore(**options))
    else:
        run_all(**options)


if __name__ == "__main__":
    sys.exit(main())
