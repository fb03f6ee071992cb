"""`sjd comfy install`: puts the node pack into a ComfyUI folder."""

import argparse
import os
import secrets
import shutil
from pathlib import Path

from .arguments import CommandError

NAME = "sjd_pipelines"
CHECKOUT = Path(__file__).resolve().parents[2]
# What a copy needs; the rest of a checkout is for those who work on it.
CONTENTS = (
    "__init__.py",
    "comfy_nodes",
    "sjd_pipelines",
    "workflows",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "requirements.txt",
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("comfy", help="put the nodes into ComfyUI", description="Use the nodes in ComfyUI.")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    install = actions.add_parser(
        "install",
        help="link or copy the node pack into a ComfyUI folder",
        description="Link this checkout into the custom_nodes folder of ComfyUI, so that both always agree. Where "
        "links are not allowed, or with --copy, copy it; run it again to bring a copy up to date.",
    )
    install.add_argument(
        "path", metavar="PATH", type=Path, nargs="?", default=Path(), help="ComfyUI folder; default: this folder"
    )
    install.add_argument("--copy", action="store_true", help="copy instead of linking")
    install.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    comfyui = arguments.path.expanduser().resolve()
    if not (CHECKOUT / "comfy_nodes").is_dir():
        raise CommandError("the nodes are not part of an installed package; run this from a checkout of the project.")
    if not (comfyui / "custom_nodes").is_dir():
        raise CommandError(f"{comfyui} is not a ComfyUI folder: it has no custom_nodes folder.")
    print(place(CHECKOUT, comfyui / "custom_nodes" / NAME, arguments.copy))
    print(f"Next, with ComfyUI's own Python: python -m pip install -r {CHECKOUT / 'requirements.txt'}")
    print("Then restart ComfyUI. Nodes: under SJD. Workflows: Templates. Models: folders in models/sjd.")
    return 0


def place(checkout: Path, target: Path, copy: bool) -> str:
    """Link `target` to `checkout`, or make it a copy; a link or copy of ours that is there is replaced.

    Returns:
        What was done.

    Raises:
        CommandError: something else is there, or it cannot be written.
    """
    if target.is_symlink() and target.resolve() == checkout and not copy:
        return f"Nothing to do: {target} already links to {checkout}."
    if target.resolve() == checkout and not target.is_symlink():
        return f"Nothing to do: {checkout} already is in ComfyUI's folder."
    if (target.exists() or target.is_symlink()) and not target.is_symlink() and not _is_ours(target):
        raise CommandError(f"{target} exists and is not this pack; move it away first.")
    # ComfyUI skips names that end so, should it start in between.
    new = target.with_name(f"{target.name}-{secrets.token_hex(4)}.disabled")
    try:
        linked = not copy and _link(checkout, new)
        if not linked:
            _copy(checkout, new)
        _replace(target, new)
    except OSError as error:
        raise CommandError(f"cannot write {target}: {error.strerror or error}.") from error
    finally:
        _remove(new)
    if linked:
        return f"Linked {target} to {checkout}: changes there are seen at once."
    reason = "" if copy else " (this system allows no links)"
    return f"Copied the pack to {target}{reason}: run this again after an update."


def _is_ours(folder: Path) -> bool:
    return (folder / "comfy_nodes").is_dir() and (folder / "sjd_pipelines" / "version.py").is_file()


def _link(checkout: Path, new: Path) -> bool:
    try:
        os.symlink(checkout, new, target_is_directory=True)
    except OSError:
        return False
    return True


def _copy(checkout: Path, new: Path) -> None:
    new.mkdir()
    for name in CONTENTS:
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, new / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy2(source, new / name)


def _replace(target: Path, new: Path) -> None:
    """Put `new` in the place of `target`; what was there goes once `new` is in."""
    old = target.with_name(f"{target.name}-{secrets.token_hex(4)}.disabled")
    if target.exists() or target.is_symlink():
        os.replace(target, old)
    try:
        os.replace(new, target)
    except OSError:
        if old.exists() or old.is_symlink():
            os.replace(old, target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
