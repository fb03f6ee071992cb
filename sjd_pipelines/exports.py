"""Names that a package exports, each imported when it is first asked for (PEP 562).

So `import sjd_pipelines` and the parsing of a command line load no torch, and a name costs what its own module costs.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
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
