"""Imports run downward only: which room may know of which others."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "sjd_pipelines"
ROOT = Path(__file__).parents[1]
# Single files that know nothing of the package, for all rooms.
GROUND = {"configured", "declaration", "disk", "exports", "ranges", "tables", "version"}

_BELOW_PIPELINES = {"bundled", "companions", "decoding", "flows", "models", "schedulers"}
_PIPELINES_AND_BELOW = {"pipelines"} | _BELOW_PIPELINES
MAY_IMPORT: dict[str, set[str]] = {
    "bundled": set(),
    "decoding": set(),
    "emoji": {"decoding"},
    "models": {"decoding"},
    "schedulers": {"decoding"},
    "companions": {"decoding", "models"},
    "flows": {"decoding", "models"},
    "pipelines": _BELOW_PIPELINES,
    "jobs": _PIPELINES_AND_BELOW,
    "learning": set(),
    "distillation": _PIPELINES_AND_BELOW | {"learning"},
    "training": _PIPELINES_AND_BELOW | {"distillation", "emoji", "learning"},
    "benchmark": _PIPELINES_AND_BELOW | {"emoji"},
    "cli": _PIPELINES_AND_BELOW | {"benchmark", "distillation", "emoji", "jobs"},
    "comfy_nodes": _PIPELINES_AND_BELOW | {PACKAGE},
}
FILES = sorted([*(ROOT / PACKAGE).glob("*/**/*.py"), *(ROOT / "comfy_nodes").glob("**/*.py")])


def rooms_of(text: str, package: str) -> Iterator[str]:
    """The rooms that a module of `package` imports from, anywhere in its text; the package itself by its name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            modules = [".".join([*base, alias.name]) for alias in node.names]  # of `from .. import name`, a room
        else:
            continue
        for module in modules:
            first, second, *_ = [*module.split("."), ""]
            if first in (PACKAGE, *MAY_IMPORT):
                yield second if first == PACKAGE and second in (*MAY_IMPORT, *GROUND) else first


def forbidden(text: str, package: str) -> set[str]:
    room = package.removeprefix(f"{PACKAGE}.").partition(".")[0]
    return set(rooms_of(text, package)) - MAY_IMPORT[room] - {room} - GROUND


def test_every_room_is_in_the_table():
    rooms = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert rooms <= MAY_IMPORT.keys()
    assert {path.stem for path in (ROOT / PACKAGE).glob("*.py")} == GROUND | {"__init__"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_run_downward(file):
    place = file.relative_to(ROOT)
    assert not forbidden(file.read_text(encoding="utf-8"), ".".join(place.parent.parts))


@pytest.mark.parametrize("room", sorted(GROUND))
def test_the_ground_knows_of_no_room(room):
    assert set(rooms_of((ROOT / PACKAGE / f"{room}.py").read_text(encoding="utf-8"), PACKAGE)) <= GROUND


@pytest.mark.parametrize(
    ("text", "package", "found"),
    [
        ("from ..cli.files import replacing", "sjd_pipelines.pipelines", {"cli"}),
        ("from .. import decoding, training", "sjd_pipelines.emoji", {"training"}),
        ("def run():\n    import sjd_pipelines.benchmark.speed", "sjd_pipelines.training", {"benchmark"}),
        ("from sjd_pipelines import SCHEDULERS", "sjd_pipelines.cli", {PACKAGE}),
        ("if TYPE_CHECKING:\n    from ..pipelines import SJDJanusPipeline", "sjd_pipelines.decoding", {"pipelines"}),
        ("from .inner import name\nfrom ..decoding import Query\nimport torch", "sjd_pipelines.schedulers", set()),
        ("from ...decoding import Query\nfrom ..rules import seeded", "sjd_pipelines.schedulers.deep", set()),
    ],
)
def test_what_counts_as_an_import(text, package, found):
    assert forbidden(text, package) == found
