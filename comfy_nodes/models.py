"""Which models there are to choose from: bundled ones, folders, and what could be fetched."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sjd_pipelines.bundled import BUNDLED, DEFAULT
from sjd_pipelines.pipelines.families import AUTOREGRESSIVE, FAMILIES, FLOW, Published, family_of_pipeline
from sjd_pipelines.pipelines.graphs import LABELS
from sjd_pipelines.pipelines.loading import find_base, find_family
from sjd_pipelines.pipelines.weight_files import check_weight_files

from .labels import CONVERT
from .runtime import DTYPES, OWN_FOLDER, SHARED_FOLDER, model_folders

CONFIGURATIONS = ("model_index.json", "config.json", "adapter_config.json")
DEFAULT_MODEL = LABELS.get(DEFAULT, DEFAULT)
# Between a name and what is wrong with it, or what it takes to get it.
BROKEN, ABSENT = " (can't be loaded: ", " (to download: "
PACK = Path(__file__).parents[1]
LONGEST_REASON = 120  # characters, in a list


@dataclass(frozen=True)
class Entry:
    """A model to choose.

    Attributes:
        source: as the library takes it: the name of a bundled model, or a folder.
        reason: why it can't be loaded; None if nothing is known to be wrong.
    """

    source: str | Path
    reason: str | None = None


def choices(kind: str) -> list[str]:
    """What a loader lists: models, broken ones with the reason, and published ones that are not here."""
    found = models(kind)
    here = {name.rpartition("/")[2] for name in found}
    listed = [f"{name}{BROKEN}{_short(one.reason)})" if one.reason else name for name, one in found.items()]
    absent = [one for one in published(kind) if one.name not in here]
    return listed + [f"{one.name}{ABSENT}{one.gigabytes:g} GB)" for one in absent]


def models(kind: str = AUTOREGRESSIVE) -> dict[str, Entry]:
    """Models of a kind by name: the bundled ones, then folders by their path below a model folder.

    `models/sjd` is ours, so all that holds a configuration there counts as autoregressive if nothing is known of it;
    from `models/diffusers`, where anything may lie, only known families do. A folder that is called as a bundled model
    is listed as `./name`.
    """
    found = {LABELS.get(name, name): Entry(name) for name in bundled(kind)}
    for place in (OWN_FOLDER, SHARED_FOLDER):
        for base in model_folders(place):
            for folder in _folders_with_configuration(base):
                known, reason = _examine(folder)
                if (known or (AUTOREGRESSIVE if place == OWN_FOLDER else None)) == kind:
                    name = folder.relative_to(base).as_posix()
                    found.setdefault(f"./{name}" if name in BUNDLED else name, Entry(folder, reason))
    return found


def bundled(kind: str) -> list[str]:
    """Names of the bundled models of a kind."""
    return [name for name, model in BUNDLED.items() if family_of_pipeline(model.pipeline).kind == kind]


def published(kind: str) -> list[Published]:
    """Models of a kind that can be fetched."""
    return [one for family in FAMILIES if family.kind == kind for one in family.published]


def find_model(choice: str, kind: str = AUTOREGRESSIVE) -> str | Path:
    """A model that `choices` lists, as the library takes it: the name of a bundled one, or a folder.

    Raises:
        ValueError: there is none, or it can't be loaded.
    """
    name = choice.partition(BROKEN)[0].partition(ABSENT)[0]
    known = models(kind)
    bare = name.removeprefix("./")
    entry = known.get(LABELS.get(name, name) if bare in BUNDLED else bare)
    if entry is None:
        raise ValueError(_not_here(name, kind))
    if entry.reason:
        raise ValueError(entry.reason)
    return entry.source


def model_files(source: str | Path) -> list[Path]:
    """The files of a model as `find_model` returns it, an adapter's base included; of a bundled one none."""
    if isinstance(source, str):
        return []
    try:
        base = find_base(source, {"local_files_only": True})
    except (OSError, ValueError):
        base = None  # told when it is loaded
    folders = [source] if base is None else [source, base]
    return [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]


def check_choice(model: str | None, kind: str) -> None:
    """Raise `ValueError` that says what is wrong with the choice of a loader; a linked or missing one is None.

    Raised, not returned: ComfyUI's page hides behind two clicks what is returned, and shows at once what is raised.
    """
    if model is not None:
        find_model(model, kind)


def check_dtype(dtype: str) -> str:
    """The number format; raises `ValueError` for none: the oldest supported ComfyUI does not check lists."""
    if dtype not in ("auto", *DTYPES):
        raise ValueError(f"dtype must be auto, {', '.join(DTYPES)}; got '{dtype}'.")
    return dtype


def fingerprint(model: str, dtype: str, kind: str) -> str:
    """What a loader loads: a folder whose files were replaced is another model."""
    files = model_files(find_model(model, kind))
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return f"{model} {dtype} {states}"


def download_command(one: Published) -> str:
    """What fetches a published model into the first of our folders."""
    program = "hf" if shutil.which("hf") else f"{_python()} -m huggingface_hub.cli.hf"
    return f'{program} download {one.source} --local-dir "{model_folders(OWN_FOLDER)[0] / one.name}"'


def _python() -> str:
    """ComfyUI's Python as it is typed; it need not be on the path, and the programs of its packages neither."""
    return f'"{sys.executable}"' if " " in sys.executable else sys.executable


def _not_here(name: str, kind: str) -> str:
    """How to get a model that is not here."""
    leaf = name.rpartition("/")[2]
    wanted = next((one for one in published(kind) if one.name == leaf), None)
    if wanted is not None:
        return (
            f"{wanted.name} is not here yet. Type: {download_command(wanted)} (about {wanted.gigabytes:g} GB; drawing "
            f"takes about {wanted.memory:g} GB of memory as bf16). Then press R and choose it."
        )
    searched = ", ".join(str(path) for place in (OWN_FOLDER, SHARED_FOLDER) for path in model_folders(place))
    sought = f"model_index.json{' of a TarFlowPipeline' if kind == FLOW else ', config.json or adapter_config.json'}"
    fetch = [f"fetch one, for instance with: {download_command(one)}," for one in published(kind)[:1]]
    how = fetch[0] if fetch else f'make one of a published file, in "{PACK}" with: {_python()} {CONVERT},'
    return (
        f"There is no model '{name}'. It is not a bundled one ({', '.join(bundled(kind))}), and no folder so "
        f"named in {searched} holds a {sought}. Choose another, or {how} and press R."
    )


def _short(reason: str) -> str:
    """A reason for a list: no longer than a line, and without what ends it there."""
    reason = reason.rstrip(".")
    return reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 2].rstrip()} …"


def _examine(folder: Path) -> tuple[str | None, str | None]:
    """What kind of model a folder holds, None if no family knows it; and what is wrong with it, None if nothing is.

    Anybody's folder may lie there, and whatever is odd about it must not take the loaders away.
    """
    kind = None
    try:
        kind = family_of_pipeline(find_family(folder).__name__).kind
        base = find_base(folder, {"local_files_only": True})
        for part in (folder, base):
            if part is not None:
                check_weight_files(part)
    except Exception as error:
        return kind, str(error) or f"{folder} can't be read."
    if not any(folder.rglob("*.safetensors")):
        return kind, f"{folder} has no .safetensors weights; download it again."
    return kind, None


def _folders_with_configuration(base: Path) -> Iterator[Path]:
    """Folders up to two levels down, as `owner/name`, that hold a model; what lies inside a model is its own."""
    for folder in _folders(base):
        yield from [folder] if _has_configuration(folder) else filter(_has_configuration, _folders(folder))


def _folders(base: Path) -> list[Path]:
    try:
        return sorted(path for path in base.iterdir() if path.is_dir())
    except OSError:  # not there, or not for us to read
        return []


def _has_configuration(folder: Path) -> bool:
    try:
        return any((folder / name).is_file() for name in CONFIGURATIONS)
    except OSError:
        return False
