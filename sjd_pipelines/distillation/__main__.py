"""`python -m sjd_pipelines.distillation`: a model of any family becomes one that needs fewer passes.

    trajectories  record what the model's own Jacobi decoding of some prompts passes through
    train         distil it on them
    export        write the student as a whole model, or as an adapter on its teacher

CEED-VLA (Song et al. 2025, arXiv 2506.13725), with sampling: the noise of a seed is fixed, so its picture is a fixed
point at any temperature.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from ..learning.runs import in_words
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.devices import read_device
from .export import export_student
from .train import StudentRecipe, train_student
from .trajectories import Judge, Settings, check_recording, read_prompts, record


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sjd_pipelines.distillation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("trajectories")
    recording.add_argument("--folder", type=Path, required=True, help="where to; the same command resumes")
    recording.add_argument(
        "--prompts", type=Path, required=True, help="a prompt a line; or .jsonl, objects with a `prompt`"
    )
    recording.add_argument("--model", default="", help="a folder, hub id or bundled name; default: the bundled model")
    recording.add_argument("--window", type=int, default=Settings.window, help="drafts of a pass")
    recording.add_argument("--batch-size", type=int, default=Settings.batch_size, help="default: %(default)s")
    recording.add_argument("--seed", type=int, default=0, help="of the first picture; default: %(default)s")
    for name, kind in (("guidance-scale", float), ("temperature", float), ("top-k", int), ("top-p", float)):
        recording.add_argument(f"--{name}", type=kind, help="default: the model's own")
    recording.add_argument(
        "--judge", type=judge, metavar="MODULE:FUNCTION", help="tells the true tokens of wrong pictures"
    )
    recording.add_argument("--minutes", type=float, default=0.0, help="stop after so many")
    recording.add_argument("--device", default="cpu", help="default: %(default)s")
    training = commands.add_parser("train")
    words = StudentRecipe.words()
    for field in fields(StudentRecipe):
        option = "--" + field.name.replace("_", "-")
        if field.name == "folder":
            training.add_argument(option, type=Path, required=True, help="the run's folder; the same command resumes")
        elif isinstance(field.default, bool):
            training.add_argument(option, action="store_true", help=words[field.name])
        else:
            training.add_argument(
                option,
                type=type(field.default),
                default=field.default,
                help=f"{words[field.name]}; default: {field.default!r}",
            )
    exporting = commands.add_parser("export")
    exporting.add_argument("--folder", type=Path, required=True, help="the run's folder")
    exporting.add_argument("--target", type=Path, required=True, help="the new model's folder")
    exporting.add_argument("--adapter", action="store_true", help="write what low-rank training has added, alone")
    exporting.add_argument("--scale", type=float, default=1.0, help="of these additions; default: %(default)s")
    return parser


def judge(place: str) -> Judge:
    """The function that `module:function` names."""
    module, _, function = place.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{place!r} is no function of an importable module: {error}") from error
    if not callable(found):
        raise argparse.ArgumentTypeError(f"{place!r} is no function of an importable module.")
    return found


def main(arguments: list[str] | None = None) -> int:
    options = vars(build_parser().parse_args(arguments))
    commands = {"trajectories": _record, "train": _train, "export": _export}
    command = commands[options.pop("command")]
    return in_words(lambda: command(**options))


def _train(**options: Any) -> None:
    train_student(StudentRecipe(**options))


def _export(**options: Any) -> None:
    print(export_student(**options))


def _record(folder: Path, prompts: Path, judge: Judge | None, minutes: float, device: str, **settings) -> None:
    entries, place, chosen = read_prompts(prompts), read_device(device), Settings(**settings)
    check_recording(folder, judge, minutes)
    pipe = SJDAutoRegressivePipeline.from_pretrained(chosen.model or None)
    pipe.set_progress_bar_config(disable=True)
    count = record(pipe.to(place), entries, folder, chosen, judge, minutes)
    print(f"{folder} holds {count} of {len(entries)} pictures.")


if __name__ == "__main__":
    sys.exit(main())
