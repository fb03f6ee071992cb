"""What a training run needs whatever it trains: a log, saving, averaged weights in place, a clean stop."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from .optimization import Optimizer


def write_atomically(path: Path, write) -> None:
    """Call `write(temporary_path)`, then move the result into place."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    temporary.replace(path)


def check_run_folder(folder: Path) -> None:
    """Raise `OSError` if there can't be such a folder, because it or one above it is a file."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if there.exists() and not there.is_dir():
        raise OSError(f"{there} is not a folder; choose another one.")


def in_words(command: Callable[[], None]) -> int:
    """Run a command; what it refuses is a line on standard error. Returns the exit status."""
    try:
        command()
    except (OSError, ValueError, ImportError, ArithmeticError) as error:
        words = f"{error.filename}: {error.strerror}." if getattr(error, "filename", None) else str(error)
        print(f"error: {' '.join(words.split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def append_log(path: Path, entry: dict) -> None:
    """Add a line of JSON to a log and show it."""
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in entry.items()), flush=True)


def save_run(
    average_file: Path,
    state_file: Path,
    named: dict[str, nn.Parameter],
    average: list[torch.Tensor],
    optimizer: Optimizer,
    progress: dict,
) -> None:
    """Write the averaged weights (as many of the named ones as there are averages), and what a run needs to go on."""
    write_atomically(average_file, lambda path: save_file(dict(zip(named, average)), path))
    state = {"weights": {k: p.detach() for k, p in named.items()}, "optimizer": optimizer.state_dict()}
    write_atomically(state_file, lambda path: torch.save(state | {"progress": progress}, path))


@contextmanager
def averaged_weights(parameters: list[nn.Parameter], average: list[torch.Tensor]) -> Iterator[None]:
    """Run a block with the averaged weights in place of the current ones."""
    current = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, current)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Within the block, SIGINT and SIGTERM set an event instead of ending the process (in the main thread only)."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def machine_name(device: torch.device, threads: int) -> str:
    """What trains, in words for a model card."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"{threads} CPU thread{'s' * (threads > 1)}"
