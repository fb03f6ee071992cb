"""Names that a package exports, each imported when it is first asked for (PEP 562).

So `import sjd_pipelines` and the parsing of a command line load no torch, and a name costs what its own module costs.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any


def lazy(
    package: str, sources: Mapping[str, Iterable[str]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """What a package takes as its `__all__`, `__getattr__` and `__dir__`.

    Args:
        package: its `__name__`.
        sources: module -> names that come from it; a module of the package begins with a dot, and is an attribute of
            the package as well.
    """
    home = {name: module for module, names in sources.items() for name in names}
    own = {module.removeprefix("."): module for module in sources if module.startswith(".")}

    def load(name: str) -> Any:
        if name in home:
            value = getattr(import_module(home[name], package), name)
            setattr(sys.modules[package], name, value)  # from now on without this function
            return value
        if name in own:
            return import_module(own[name], package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def known() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home, *own})

    return sorted(home), load, known


class Registry(MutableMapping[str, type]):
    """Name -> class. A program may add classes of its own, for the command line it starts or its tests.

    Args:
        package: of the modules.
        places: name -> `module.Class`, imported when it is asked for, so that the names are known without torch.
    """

    def __init__(self, package: str, places: Mapping[str, str]):
        self._package = package
        self._entries: dict[str, str | type] = dict(places)

    def __getitem__(self, name: str) -> type:
        entry = self._entries[name]
        if isinstance(entry, str):
            module, cls = entry.split(".")
            entry = self._entries[name] = getattr(import_module(f".{module}", self._package), cls)
        return entry

    def __setitem__(self, name: str, cls: type) -> None:
        self._entries[name] = cls

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def named(self, class_name: str) -> str:
        """The name that the class called `class_name` is registered under; where there is none, `class_name`."""
        for name, entry in self._entries.items():
            if class_name == (entry.rpartition(".")[2] if isinstance(entry, str) else entry.__name__):
                return name
        return class_name

    def name_of(self, cls: type) -> str:
        """The name `cls` is registered under, or its class name."""
        return next((name for name, registered in self.items() if registered is cls), cls.__name__)


def exports_of(places: Iterable[str]) -> dict[str, list[str]]:
    """`module.Class` texts as `lazy` takes them: module -> its classes."""
    sources: dict[str, list[str]] = {}
    for place in places:
        module, name = place.split(".")
        sources.setdefault(f".{module}", []).append(name)
    return sources
