"""Output files of a command: checked before any work, written whole or not at all."""

from collections.abc import Iterable, Iterator
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


def check_distinct(paths: Iterable[Path]) -> None:
    """Raise `CommandError` if one output would replace another."""
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise CommandError(f"{path} is the file of two outputs; give them different names.")
        seen.add(path.resolve())


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
