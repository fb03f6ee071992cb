"""What the measuring commands share: journals in files, threads, counters, the model's name."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..disk import expanded, read_json
from .arguments import CommandError
from .files import check_writable, write_json

if TYPE_CHECKING:
    from ..benchmark.journal import Journal

UNFINISHED = "unfinished"  # the key of a file that a run has not finished yet


def open_journal(option: str, path: Path | None) -> "Journal":
    """The journal of a run: a new one, or the one in the file that an interrupted run left at `path`.

    Raises:
        CommandError: the file cannot be written, or holds anything else.
    """
    from ..benchmark.journal import Journal

    if path is None:
        return Journal()
    check_writable(option, path)
    save = partial(_save_unfinished, path)
    if not path.exists():
        return Journal(save=save)
    try:
        value = read_json(path)
    except OSError as error:
        raise CommandError(f"{option} {path}: exists and is not the file of an unfinished run.") from error
    if not isinstance(value, dict) or UNFINISHED not in value:
        raise CommandError(f"{option} {path}: holds something finished; delete it or name another file.")
    if value != _sealed(value[UNFINISHED]):
        raise CommandError(
            f"{option} {path}: the unfinished run in it was edited, or is another version's; delete it or name "
            "another file."
        )
    return Journal(value[UNFINISHED], save)


def model_name(model: str | None) -> str:
    """A hub id as it is, a folder by its name alone."""
    if model is None:
        return "bundled"
    folder = expanded(model)
    return folder.resolve().name if folder.is_dir() else model


def show_count(done: int, total: int, stage: str = "runs") -> None:
    """A counter that stays on its line and is gone at the end."""
    print(f"\r\033[K{stage} {done}/{total}" if done < total else "\r\033[K", end="", file=sys.stderr, flush=True)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Run with `count` CPU threads; torch's setting is global, so it is put back."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _save_unfinished(path: Path, journal: dict) -> None:
    write_json(path, _sealed(journal), indent=None)


def _sealed(journal: Any) -> dict[str, Any]:
    """A journal with a digest, by which it is known to be as it was written."""
    text = json.dumps(journal)  # in the order in which it will be read
    return {UNFINISHED: journal, "sha256": hashlib.sha256(text.encode()).hexdigest()}
