"""Output files: checked before any work, written whole or not at all."""

import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .arguments import CommandError


def check_suffix(option: str, path: Path, suffixes: Iterable[str]) -> None:
    """Raise `CommandError` unless `path` ends in one of `suffixes`."""
    if path.suffix.lower() not in suffixes:
        raise CommandError(f"{option} {path}: must end in {', '.join(suffixes)}.")


def check_writable(option: str, path: Path) -> None:
    """Raise `CommandError` unless a file can be made at `path`."""
    if path.is_dir():
        raise CommandError(f"{option} {path}: is a folder; name a file.")
    check_folder(option, path.parent)


def check_folder(option: str, folder: Path) -> None:
    """Raise `CommandError` unless files can be made in `folder`."""
    if not folder.exists():
        raise CommandError(f"{option}: the folder {folder} does not exist.")
    if not folder.is_dir():
        raise CommandError(f"{option}: {folder} is not a folder.")
    try:
        # Permission bits do not tell the whole truth (read-only mounts, administrators), so make a nameless file.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CommandError(f"{option}: cannot write in the folder {folder}: {error.strerror}.") from error


def check_distinct(paths: Iterable[Path]) -> None:
    """Raise `CommandError` if one output would replace another."""
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise CommandError(f"{path} is the file of two outputs; give them different names.")
        seen.add(path.resolve())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes the place of `path` when the block ends without an error.

    Raises:
        CommandError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write `value` as JSON, whole or not at all; without `indent` on one line."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
