"""Writes the folder of a bundled model: all of it, or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from ..disk import read_object

RESULTS_FILE = "results.json"


def kept_results(target: Path) -> dict:
    """The scores that a folder has.

    Raises:
        FileNotFoundError: there are none.
    """
    if not (target / RESULTS_FILE).exists():
        raise FileNotFoundError(f"{target} has no {RESULTS_FILE} yet; pass the results that evaluate writes.")
    return read_object(target / RESULTS_FILE)


def write_bundle(target: Path, write: Callable[[Path], None], results: dict, card: str) -> Path:
    """Write a folder under another name and put it in the place of `target`.

    Args:
        write: writes the model into the folder that it is given.
        results: for `results.json`.
        card: the model card.
    """
    temporary, previous = target.with_name(target.name + ".tmp"), target.with_name(target.name + ".old")
    for leftover in (temporary, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    for file in temporary.rglob("*.safetensors"):
        file.chmod(0o644)  # weights are written for their owner alone, which a wheel would keep
    (temporary / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n")
    (temporary / "README.md").write_text(card)
    if target.exists():
        target.rename(previous)
    temporary.rename(target)
    shutil.rmtree(previous, ignore_errors=True)
    return target


def phases_told(course: dict) -> str:
    """The phases of a course, for a card."""
    return ", ".join(
        f"{phase['pictures']:,} (batch {phase['batch_size']}, rates to {phase['rate']:g})"
        for phase in course["phases"]
    )


def course_options(course: dict) -> str:
    """What a course was started with, as options of its command; those left at their defaults are left out."""
    parts = [f"--scale {course['scale']:g}"] if course["scale"] != 1 else []
    parts += [f"--batches {course['batches']}"] if course["batches"] != 1 else []
    parts += [f"--device {course['device']}"] if course["device"] != "cpu" else []
    return " ".join(["", *parts])
