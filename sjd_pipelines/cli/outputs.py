"""What `sjd generate` writes: pictures as they finish, and a sheet, an animation and statistics of those that did."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..jobs.provenance import png_bytes, save_picture
from ..jobs.rows import Row
from ..jobs.table import first_twice
from .arguments import CommandError
from .files import check_file, check_folder, check_output_folder, check_suffix, check_writable, json_list, replacing
from .plan import PICTURE_SUFFIXES, Plan

if TYPE_CHECKING:
    from ..jobs.session import Drawn, Session
    from ..pipelines.pictures import Recording

MOST_ON_SHEET, MOST_IN_ANIMATION = 10_000, 100  # pictures
EXTRAS = {"grid": PICTURE_SUFFIXES, "gif": (".gif",), "stats": ()}


def check_outputs(arguments: argparse.Namespace, plan: Plan) -> None:
    """Raise `CommandError` for an output that cannot be written."""
    extras = {name: getattr(arguments, name) for name in EXTRAS if getattr(arguments, name) is not None}
    if plan.to_standard_output:
        check_standard_output(plan, extras)
    else:
        check_pictures(plan)
    for name, most in (("grid", MOST_ON_SHEET), ("gif", MOST_IN_ANIMATION)):
        if name in extras and plan.total > most:
            raise CommandError(f"--{name}: of {most} pictures at most, these are {plan.total}.")
    for name, path in extras.items():
        if EXTRAS[name]:
            check_suffix(f"--{name}", path, EXTRAS[name])
        if os.path.realpath(path.parent) == os.path.realpath(plan.folder) and not plan.to_standard_output:
            check_file(f"--{name}", path)
        else:
            check_writable(f"--{name}", path)
    if (path := first_twice(_Files(plan, extras.values()), os.path.realpath)) is not None:
        raise CommandError(f"{path} is the file of two outputs; give them different names.")


def check_pictures(plan: Plan) -> None:
    """Raise `CommandError` unless all picture files can be made or replaced."""
    if plan.named:
        check_folder("--output", plan.folder)
    else:  # a folder that is named as such is made if need be
        check_output_folder("--output", plan.folder)
    for path in plan.files():
        check_file("--output", path)


def check_standard_output(plan: Plan, extras: dict[str, Path]) -> None:
    """Raise `CommandError` unless one picture can go to standard output."""
    if plan.total > 1:
        raise CommandError(f"--output -: takes one picture, these are {plan.total}; name a folder.")
    if "grid" in extras:
        raise CommandError("--output -: one picture has no --grid.")
    if sys.stdout.isatty():
        raise CommandError("--output -: standard output is a terminal; name a file.")


class _Files:
    """The files of a run, gone through again and again; at most one in memory."""

    def __init__(self, plan: Plan, extras: Iterable[Path]):
        self.plan, self.extras = plan, extras

    def __iter__(self) -> Iterator[Path]:
        return chain(() if self.plan.to_standard_output else self.plan.files(), self.extras)


class Outputs:
    """The files of a run. Leaving the block, for whatever reason, completes what is asked for beside the pictures.

    Args:
        arguments: of the command.
        session: draws the pictures.
        plan: the pictures.
    """

    def __init__(self, arguments: argparse.Namespace, session: "Session", plan: Plan):
        self.arguments, self.session, self.plan = arguments, session, plan
        self.finished = 0
        self._shown: list[Path] = []  # on the sheet
        self._recordings: list[Recording] = []
        self._stats = ExitStack()
        self._append: Callable[[Any], None] | None = None

    def __enter__(self) -> "Outputs":
        return self

    def recording(self, row: Row) -> "Recording | None":
        """What keeps how a batch looked after each pass, if that is asked for."""
        if self.arguments.gif is None:
            return None
        from ..pipelines.pictures import Recording

        return Recording(row.height, row.width)

    def write(self, drawn: Sequence["Drawn"], recording: "Recording | None") -> None:
        """Write the pictures of a batch. Raises `CommandError` for a file that can't be written."""
        if recording is not None:
            self._recordings.append(recording)
        for one in drawn:
            if self.plan.to_standard_output:
                sys.stdout.buffer.write(png_bytes(one.image, one.provenance))
            else:
                self._write_file(one)
            self.finished += 1
            if self.arguments.stats is not None:
                if self._append is None:
                    self._append = self._stats.enter_context(json_list(self.arguments.stats))
                self._append(one.record)

    def _write_file(self, one: "Drawn") -> None:
        path = one.row.path
        if not self.finished and not self.plan.named:
            path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            save_picture(one.image, temporary, one.provenance)
        if self.arguments.grid is not None:
            self._shown.append(path)
        print(path if self.arguments.quiet else f"{path}  {self.session.summary(one.record)}", flush=True)

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        with self._stats:
            if self.finished:
                self._write_sheets()
        named = (self.arguments.grid, self.arguments.gif, self.arguments.stats)
        if kind is None and not self.plan.to_standard_output:
            for path in named:
                if path is not None:
                    print(path)

    def _write_sheets(self) -> None:
        from ..pipelines.sheets import contact_sheet, sheet_of_files

        # A row per prompt where each has several pictures, else a square.
        count = self.arguments.num_images or 1
        columns = count if 1 < count < self.finished else math.isqrt(self.finished - 1) + 1
        if self.arguments.grid is not None:
            with replacing(self.arguments.grid) as temporary:
                sheet_of_files(self._shown, columns).save(temporary)
        if self._recordings:
            from ..pipelines.pictures import forming_frames, save_animation

            forming = forming_frames(self.session.pipe, self._recordings)
            with replacing(self.arguments.gif) as temporary:
                save_animation([contact_sheet(pictures, columns) for pictures in forming], temporary)
