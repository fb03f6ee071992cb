"""Writes __init__.pyi, which editors and type checkers read, of the packages that import their names late.

`python tests/stubs.py`
"""

from importlib import import_module
from pathlib import Path

LATE = (
    "sjd_pipelines",
    "sjd_pipelines.companions",
    "sjd_pipelines.flows",
    "sjd_pipelines.pipelines",
    "sjd_pipelines.schedulers",
)


def stub_file(package: str) -> Path:
    return Path(import_module(package).__file__).with_suffix(".pyi")


def stub(package: str) -> str:
    """The text of `__init__.pyi`: the package's names, imported from where it gets them."""
    module = import_module(package)
    lines = [f'"""{module.__doc__}"""', ""]
    for source, names in sorted(module.SOURCES.items(), key=lambda item: (item[0].startswith("."), item[0])):
        lines += [f"from {source} import (", *(f"    {name}," for name in sorted(names, key=_in_order)), ")"]
        lines += [] if source.startswith(".") else [""]  # other packages come first, apart
    lines += ["from .version import __version__"] if "__version__" in module.__all__ else []
    lines += ["", "__all__ = [", *(f'    "{name}",' for name in module.__all__), "]"]
    return "\n".join(lines) + "\n"


def _in_order(name: str) -> tuple[bool, bool, str]:
    """Constants first, then classes, then functions."""
    return not name.isupper(), name.islower(), name.lower()


if __name__ == "__main__":
    for package in LATE:
        stub_file(package).write_text(stub(package), encoding="utf-8")
