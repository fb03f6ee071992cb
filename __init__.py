"""ComfyUI's way in: it imports this file from its `custom_nodes` folder. Anyone else finds an empty module here."""

import importlib.util as _util
import logging as _logging
import re as _re
import sys as _sys
from importlib import metadata as _metadata
from pathlib import Path as _Path
from urllib.parse import quote as _quote

_FOLDER = _Path(__file__).resolve().parent
_LIBRARY = "sjd_pipelines"
_TORCH = "torch>=2.9"  # is ComfyUI's own, so it is not in requirements.txt


def _unmet(requirement: str) -> str | None:
    """What ComfyUI's Python has instead of `name>=version`; None if it has it."""
    name, _, least = requirement.partition(">=")
    try:
        found = _metadata.version(name)
    except _metadata.PackageNotFoundError:
        return f"{requirement} (there is none)"
    # A damaged installation has no version.
    return f"{requirement} (here is {found})" if found and _numbers(found) < _numbers(least) else None


def _numbers(version: str) -> list[int]:
    """The numbers that begin a version: `2.9.0rc1+cu130` is 2, 9, 0."""
    return [int(part) for part in _re.match(r"[\d.]*", version)[0].split(".") if part]


def _check_requirements() -> None:
    """Raise `ImportError` that says what to type, if ComfyUI's Python lacks anything."""
    file = _FOLDER / "requirements.txt"
    if too_old := _unmet(_TORCH):
        raise ImportError(f"The SJD nodes need {too_old}: bring ComfyUI and its torch up to date.")
    missing = [words for line in file.read_text(encoding="utf-8").split() if (words := _unmet(line))]
    if missing:
        # PowerShell takes quotes at a command's beginning for a text.
        python, listed = (f'"{path}"' if " " in path else path for path in (_sys.executable, str(file)))
        command = f"{python} -m pip install -r {listed}"
        raise ImportError(f"The SJD nodes need {', '.join(missing)}. Type: {command} and start ComfyUI again.")


def _check_name(name: str) -> None:
    """Say so if ComfyUI's web server cannot find what lies in a folder of this name, which stands in addresses."""
    if _quote(name, safe="!$&'()*+,;=:@") != name:
        _logging.getLogger(_LIBRARY).warning(
            "SJD nodes: ComfyUI shows no templates and help pages of a pack whose folder name has blanks or other "
            "signs than letters, digits, - _ and . in it. Rename custom_nodes/%s, and start ComfyUI again.",
            name,
        )


def _take_own_library() -> None:
    """Make `import sjd_pipelines` find the library beside this file, whatever else is called so.

    Another pack may have put `custom_nodes` on `sys.path`, where this very folder has that name; and what is installed
    may be of another version.
    """
    own = _FOLDER / _LIBRARY
    known = getattr(_sys.modules.get(_LIBRARY), "__file__", None)
    if known is not None and _Path(known).resolve().parent == own:
        return
    for name in [name for name in _sys.modules if name.partition(".")[0] == _LIBRARY]:
        del _sys.modules[name]
    spec = _util.spec_from_file_location(_LIBRARY, own / "__init__.py", submodule_search_locations=[str(own)])
    module = _sys.modules[_LIBRARY] = _util.module_from_spec(spec)
    spec.loader.exec_module(module)


# pytest and other tools import this file as well, without ComfyUI around it.
if __package__ and _util.find_spec("comfy_api") is not None:
    _as_library = __name__ == _LIBRARY  # someone who meant the library found this folder first
    _check_requirements()
    _check_name(_Path(__file__).parent.name)
    _take_own_library()
    if not _as_library:
        from .comfy_nodes import comfy_entrypoint

        WEB_DIRECTORY = "./comfy_nodes/web"
        __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
