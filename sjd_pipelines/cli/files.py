"""Output files of a command: checked before any work, written whole or not at all."""

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import disk
from .arguments import CommandError


def check_suffix(option: str, path: Path, suffixes: Iterable[str]) -> None:
    """Raise `CommandError` unless `path` ends in one of `suffixes`."""
    if path.suffix.lower() not in suffixes:
        raise CommandError(f"{option} {path}: must end in {', '.join(suffixes)}.")


def check_writable(option: str, path: Path) -> None:
    """Raise `CommandError` unless a file can be made at `path`, or the one that is there be replaced."""
    check_file(option, path)
    check_folder(option, disk.followed(path).parent)


def check_file(option: str, path: Path) -> None:
    """The same, but for the folder it lies in."""
    if refusal := disk.refusal_of_file(path):
        raise CommandError(f"{option} {path}: {refusal}")


def check_folder(option: str, folder: Path) -> None:
    """Raise `CommandError` unless files can be made in `folder`."""
    if refusal := disk.refusal_of_folder(folder):
        raise CommandError(f"{option}: {refusal}")


def check_output_folder(option: str, folder: Path) -> None:
    """The same for a folder that may be made in one that exists."""
    if refusal := disk.refusal_of_output_folder(folder):
        raise CommandError(f"{option}: {refusal}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `disk.replacing`. Raises `CommandError` if the file cannot be written."""
    try:
        with disk.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """As `disk.write_json`. Raises `CommandError` if the file cannot be written."""
    try:
        disk.write_json(path, value, indent)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def json_list(path: Path) -> Iterator[Callable[[Any], None]]:
    """A function that appends to a list in a file, which has its name when the block ends without an error.

    Raises:
        CommandError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        separator = "["

        def append(value: Any) -> None:
            nonlocal separator
            text = json.dumps(value, indent=1, ensure_ascii=False)
            file.write(f"{separator}\n{textwrap.indent(text, ' ')}")
            separator = ","

        yield append
        file.write("\n]\n")
