"""Files and folders: names as people type them, JSON of unknown origin, and output written whole or not at all.

Only regular files are ever replaced. Nothing here needs torch.
"""

import errno
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST_NAME = 255  # bytes, of a file or a folder
TEMPORARY = ".sjd-"  # begins the names of files that are still written
_PARTIAL = ".partial"  # ends the names of folders that are still written
_KINDS = {
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def expanded(path: str | Path) -> Path:
    """A path with `~` and `~user` written out. Raises `OSError` if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise OSError(f"{path}: there is no user of that name.") from error


def refusal_of_file(path: Path) -> str | None:
    """Why no file can be made at `path`, or the one there not be replaced, but for its folder; None if it can."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # too long, a loop of links, a zero byte
        return _reason(error)
    if stat.S_ISDIR(mode):
        return "is a folder; name a file."
    if not stat.S_ISREG(mode):
        kind = next((words for is_kind, words in _KINDS.items() if is_kind(mode)), "something else")
        return f"is {kind}, not a regular file; name another one."
    if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not os.access(path, os.W_OK):
        return "is read-only; name another file, or make it writable."
    return None


def refusal_of_folder(folder: Path) -> str | None:
    """Why no file can be made in `folder`; None if one can."""
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            return f"{folder} is not a folder."
    except FileNotFoundError:
        return f"the folder {folder} does not exist."
    except NotADirectoryError:
        return f"{folder} is not a folder."
    except (OSError, ValueError) as error:
        return f"{folder}: {_reason(error)}"
    try:
        # Permission bits do not tell the whole truth (read-only mounts, administrators), so make a nameless file.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"cannot write in the folder {folder}: {error.strerror}."
    return None


def refusal_of_output_folder(folder: Path) -> str | None:
    """Why no file can be made in `folder`, which may be made in one that exists; None if one can."""
    try:
        os.stat(folder)
    except FileNotFoundError:
        return refusal_of_folder(folder.parent)
    except (OSError, ValueError) as error:
        return f"{folder}: {_reason(error)}"
    return refusal_of_folder(folder)


def followed(path: Path) -> Path:
    """Where a link leads; any other path as it is. Raises `OSError` for a loop of links."""
    try:
        return path.resolve() if path.is_symlink() else path
    except RuntimeError as error:  # before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error


def check_output(path: Path) -> None:
    """Raise `OSError` unless a file can be made at `path`, or replace the one that is there."""
    if refusal := refusal_of_file(path):
        raise OSError(f"{path}: {refusal}")
    if refusal := refusal_of_folder(followed(path).parent):
        raise OSError(f"{path}: {refusal}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; it takes the place of `path` when the block ends without an error.

    Where `path` is a link, what it leads to is replaced and the link stays.

    Raises:
        OSError: the file cannot be written.
    """
    final = followed(path)
    temporary = final.with_name(f"{TEMPORARY}{secrets.token_hex(4)}{final.suffix}")
    try:
        yield temporary
        if refusal := refusal_of_file(final):
            raise OSError(f"{path}: {refusal}")
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write to; it becomes `target` when the block ends without an error.

    What is in it gets the permissions that a new file has here. What a killed process left of the same target is
    removed.

    Raises:
        OSError: `target` exists, or cannot be made.
    """
    check_new_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{_glob_free(target.name)}-????????{_PARTIAL}"):
        _remove_abandoned(left)
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}{_PARTIAL}")
    temporary.mkdir()
    try:
        with _held(temporary):
            yield temporary
            allowed = stat.S_IMODE(temporary.stat().st_mode)
            for path in temporary.rglob("*"):  # libraries write what only its owner may read
                path.chmod(allowed if path.is_dir() else allowed & 0o666)
            check_new_folder(target)
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def as_new_files(folder: Path, pattern: str) -> None:
    """Give files in a folder, and in those within, the permissions that a new file has there.

    Libraries write what only its owner may read.
    """
    probe = folder / f"{TEMPORARY}{secrets.token_hex(4)}"
    probe.touch()
    try:
        allowed = stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()
    for path in folder.rglob(pattern):
        path.chmod(allowed)


def check_new_folder(target: Path) -> None:
    """Raise `OSError` if `target` exists, or cannot be made."""
    try:
        os.lstat(target)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise OSError(f"{target}: {_reason(error)}") from error
    else:
        raise FileExistsError(f"{target} exists; choose a new folder.")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in target.parts):
        raise OSError(f"{target}: {os.strerror(errno.ENAMETOOLONG)}.")
    existing = next(folder for folder in target.absolute().parents if folder.exists())
    if refusal := refusal_of_folder(existing):
        raise OSError(refusal)


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write `value` as JSON, whole or not at all; without `indent` on one line. Raises `OSError`."""
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        # A command line may hold bytes that are no text; as an escape they are JSON.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_text(file: Path) -> str:
    """The text of a file in UTF-8. Raises `OSError`, of the type of what went wrong."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise type(error)(f"{file}: {_reason(error)}") from error
    except UnicodeDecodeError as error:
        raise OSError(f"{file} is no text in UTF-8: {error}.") from error


def read_json(file: Path) -> Any:
    """What a JSON file of unknown origin holds. Raises `OSError` if it cannot be read or is not valid JSON."""
    text = read_text(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise OSError(f"{file} is not valid JSON: {reason}.") from error


def read_object(file: Path) -> dict[str, Any]:
    """The same for a file that must hold an object."""
    value = read_json(file)
    if not isinstance(value, dict):
        raise OSError(f"{file} holds {type(value).__name__} where a JSON object is expected.")
    return value


def _reason(error: OSError | ValueError) -> str:
    return f"{getattr(error, 'strerror', None) or error}."


def _glob_free(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A lock on a folder that a process holds as long as it lives."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a process left that is gone; where there are no locks nobody knows, and it stays."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
    except OSError:
        return
