"""A row of a job: one picture to draw. Read from foreign tables, so that everything about it is checked here."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..pipelines.inputs import SAMPLING, SEED, SIDE, check_flow, check_prompt, check_sampling, check_text
from ..ranges import meant, shown
from .schedulers import REGISTRIES, make_scheduler

COLUMNS = ("id", "prompt", "negative_prompt", "seed", "picture_seed", "height", "width", "settings")
LONGEST_ID = 200  # characters
SCHEDULER = "scheduler"  # the setting that is no number
# What a flow may be told besides guidance_scale.
FLOW_OPTIONS = ("annealed_guidance", "guide_what", "attention_temperature", "denoise_strength")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_SEED_BITS = 53  # what JSON of any program keeps


@dataclass(frozen=True)
class Row:
    """One picture to draw.

    Attributes:
        id: its name in the job.
        prompt: what to draw; of a flow, a class by name or number.
        negative_prompt: what guidance leads away from; None is the model's own.
        seed: as `sjd generate --seed` takes it; None derives one from the id, unless there is a `picture_seed`.
        picture_seed: the seed of the picture itself, as `statistics.seeds` has it.
        height: pixels; None is the model's own.
        width: pixels; None is the model's own.
        settings: sampling options by name, and `scheduler`: an object of its `name` and its settings. Without a name
            they change the model's own scheduler.
        path: where the picture goes; no column of a table.
    """

    id: str
    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None
    picture_seed: int | None = None
    height: int | None = None
    width: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any], number: int) -> "Row":
        """The row that a table has in these columns; None and what is missing is not given.

        Args:
            values: column -> value.
            number: of the row, from 1; its id where it has none.

        Raises:
            ValueError: a column that there is not, or a value that the column does not take.
        """
        given = {name: value for name, value in values.items() if value is not None}
        for name in given:
            if name not in COLUMNS:
                raise ValueError(f"{shown(name)} is no column; known are {', '.join(COLUMNS)}.")
        if "prompt" not in given:
            raise ValueError("it has no prompt.")
        given["id"] = _id(given.get("id", f"{number:06}"))
        _check_texts(given, number)
        if "seed" in given and "picture_seed" in given:
            raise ValueError("seed and picture_seed exclude each other; give one of them.")
        for name, limits in (("seed", SEED), ("picture_seed", SEED), ("height", SIDE), ("width", SIDE)):
            if name in given:
                given[name] = limits.check(name, given[name])
        given["settings"] = check_row_settings(given.get("settings", {}))
        return cls(**given)

    @property
    def file_stem(self) -> str:
        """The id as the name of a file without its suffix, the same on every system."""
        if _FILE_NAME.fullmatch(self.id):
            return self.id
        return f"{slug(self.id)}-{hashlib.sha256(self.id.encode()).hexdigest()[:12]}"

    @property
    def drawn_together(self) -> tuple[Any, ...]:
        """Rows of which this is the same may share a batch."""
        return self.height, self.width, self.negative_prompt is None, json.dumps(self.settings, sort_keys=True)

    def with_seed(self) -> "Row":
        """The row with the seed that its id stands for, if it has none."""
        if self.seed is not None or self.picture_seed is not None:
            return self
        digest = hashlib.sha256(b"seed of " + self.id.encode()).digest()
        return replace(self, seed=int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS))

    def with_defaults(self, defaults: "Row") -> "Row":
        """The row with what another one has where it has nothing itself."""
        names = ("negative_prompt", "height", "width")
        given = {name: getattr(defaults, name) for name in names if getattr(self, name) is None}
        return replace(self, settings={**defaults.settings, **self.settings}, **given)

    def to_json(self) -> dict[str, Any]:
        """The columns that are given, as `of` takes them."""
        values = {name: getattr(self, name) for name in COLUMNS}
        return {name: value for name, value in values.items() if value is not None and value != {}}


def check_row_settings(settings: Any) -> dict[str, Any]:
    """Settings of a row, numbers as Python's own; raises `ValueError` for what is none."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"settings must be an object such as {{'temperature': 0.9}}, got {shown(settings)}.")
    checked: dict[str, Any] = {}
    for name, value in settings.items():
        if name == SCHEDULER:
            checked[name] = _check_scheduler({"name": value} if isinstance(value, str) else value)
        elif name in SAMPLING:
            checked |= check_sampling(**{name: value})
        elif name in FLOW_OPTIONS:
            checked |= check_flow({name: _scalar(name, value)})
        else:
            known = ", ".join((*SAMPLING, *FLOW_OPTIONS, SCHEDULER))
            raise ValueError(f"settings: {shown(name)} is none; known are {known}.")
    return checked


def check_scheduler(row: Row) -> None:
    """Raise `ValueError` if the scheduler that a row names has not the settings that the row gives it."""
    described = row.settings.get(SCHEDULER, {})
    if described.get("name") is not None:  # else it is the model's own, which only the model tells
        make_scheduler(None, described)


def slug(text: str, length: int = 50) -> str:
    """A file name of a text: its words in small letters, joined by hyphens; `length` characters at most."""
    return "-".join(re.findall(r"\w+", text.lower()))[:length].strip("-") or "picture"


def _check_scheduler(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"scheduler must be a name, or an object of its name and settings, got {shown(value)}.")
    name = value.get("name")
    known = [known for registry in REGISTRIES for known in registry]
    if name is not None and (not isinstance(name, str) or name not in known):
        near = next(filter(None, (meant(registry.named(name), registry) for registry in REGISTRIES)), "")
        raise ValueError(f"unknown scheduler {shown(name)}{near or '; known are ' + ', '.join(known)}.")
    return {key: _scalar(f"scheduler: {key}", one) for key, one in value.items()}


def _scalar(name: str, value: Any) -> Any:
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError(f"{name} must be a number, a text, true, false or null, got {shown(value)}.")
    return value


def _check_texts(given: Mapping[str, Any], number: int) -> None:
    for name in ("prompt", "negative_prompt"):
        if not isinstance(given.get(name, ""), str):
            raise ValueError(f"{name} must be a text, got {shown(given[name])}.")
    check_prompt(number, given["prompt"])
    check_text("negative_prompt", given.get("negative_prompt", ""))


def _id(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_ID or not text.isprintable():
        raise ValueError(f"id must be a printable text of 1 to {LONGEST_ID} characters, got {shown(value)}.")
    return text
