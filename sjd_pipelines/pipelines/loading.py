"""Where a pipeline comes from: bundled by name, folder or hub; diffusers or transformers layout; which family."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from inspect import Parameter, signature
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from ..bundled import BUNDLED, DEFAULT, bundled_folder
from ..companions import COMPANIONS
from ..disk import expanded, read_object
from ..models import published_dtype, published_names
from ..ranges import shown
from ..schedulers import SCHEDULERS
from .adapters import Adapter, is_adapter
from .devices import known_devices
from .families import FAMILIES, INSTEAD, family_of_pipeline, family_of_type, family_of_weights
from .hub import download_file, download_folder
from .options import (
    AUTO,
    COMMON,
    elsewhere,
    for_diffusers,
    for_transformers,
    loader_options,
    read_options,
    read_subfolder,
    stored_dtype,
    take_hub_options,
)
from .weight_files import check_weight_files
from .weights import check_networks, check_parts, load_network

MOST_LAYERS, LARGEST = 1000, 2**40
_HEADS = ["config.json", "model_index.json", "adapter_config.json"]  # what tells the family
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def load_pipeline(cls: type, source: str | Path | None, kwargs: dict[str, Any]):
    """Find the family of `source` and load it; `cls` is the base class or the family the caller expects."""
    kwargs = dict(kwargs)
    hub_options = take_hub_options(kwargs)
    folder, family = find_pipeline(source, hub_options, subfolder=read_subfolder(kwargs))
    _check_family(cls, family, folder.name if source is None else source, kwargs)
    kwargs = read_options(kwargs, family)
    base = find_base(folder, hub_options)
    for part in (folder, base):
        if part:
            check_weight_files(part)
    if kwargs.get("dtype") == AUTO:
        kwargs["dtype"] = stored_dtype((base or folder).rglob("*.safetensors"))
    if "hub_options" in signature(getattr(family, "load_transformers_parts", family)).parameters:
        kwargs["hub_options"] = elsewhere(hub_options)
    return _load_folder(folder, family, kwargs) if base is None else _load_adapter(folder, base, family, kwargs)


def _load_folder(folder: Path, family: type, kwargs: dict[str, Any]):
    """A whole model; its files have been checked."""
    kwargs = dict(kwargs)
    if (folder / "model_index.json").is_file():
        kwargs.pop("hub_options", None)
        for name, value in kwargs.items():
            if isinstance(value, str | Path) and (folder / name).is_dir():
                raise ValueError(f"{folder} has its own {name}; leave it out, or pass one that is loaded.")
        with foreign(folder):
            check_networks(folder, family, kwargs.keys(), kwargs.get("variant"))
            options = for_diffusers(kwargs, family)
            device = options.pop("device_map") if options.get("device_map") in known_devices() else None
            pipe = family.load_diffusers_folder(folder, **options)
            return pipe if device is None else pipe.to(device)
    if not any(folder.glob("*.safetensors")):
        raise OSError(f"{folder} has no .safetensors weights; pickled weights are not loaded, convert them first.")
    scheduler = kwargs.pop("scheduler", None)
    own = signature(family).parameters.keys() - signature(family.load_transformers_parts).parameters.keys()
    given = {name: kwargs.pop(name) for name in own if name in kwargs}  # components in place of those in the folder
    with foreign(folder):
        parts = family.load_transformers_parts(folder, **for_transformers(kwargs))
    pipe = family(**parts | given, scheduler=scheduler)
    _load_companions(pipe, folder, given)
    if scheduler is None:
        pipe.register_modules(scheduler=family.default_scheduler(pipe.reviser))
    return pipe


def _load_adapter(folder: Path, base: Path, family: type, kwargs: dict[str, Any]):
    """The model in `base` with the adapter merged into it; what else there is in `folder` takes the base's place."""
    if kwargs.get("quantization_config") is not None:
        raise ValueError(
            f"{folder} is an adapter, which quantised weights can't take; load it without quantization_config, save "
            "the pipeline and load that."
        )
    adapter = Adapter.of_folder(folder)
    adapter.check_base(base)
    pipe = _load_folder(base, family, kwargs)
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    with foreign(folder):
        network = adapter.merge_into({name: part for name, part in networks.items() if name not in COMPANIONS})
        _load_companions(pipe, folder)
        if (folder / "generation_config.json").is_file():
            network.generation_config = GenerationConfig.from_pretrained(folder)
    if kwargs.get("scheduler") is None:
        scheduler = _own_scheduler(folder)
        if scheduler is None and not (base / "model_index.json").is_file():
            scheduler = family.default_scheduler(pipe.reviser)  # the adapter may have brought a reviser
        pipe.register_modules(scheduler=scheduler or pipe.scheduler)
    return pipe


def _load_companions(pipe: Any, folder: Path, given: Collection[str] = ()) -> None:
    """Give a pipeline the companions that `folder` has, but for those it was `given`."""
    for name, kind in COMPANIONS.items():
        if (folder / name).is_dir() and name not in given:
            network = load_network(kind, folder / name, pipe.dtype)
            pipe.register_modules(**{name: network.to(pipe._execution_device)})


def _own_scheduler(folder: Path) -> Any:
    """The scheduler in `folder/scheduler`; None if there is none."""
    file = folder / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        return None
    name = read_object(file).get("_class_name")
    for cls in SCHEDULERS.values():
        if cls.__name__ == name:
            return cls.from_pretrained(file.parent)
    raise ValueError(f"{file} is for {name}, which is no decoding scheduler.")


def load_single_file(cls: type, file: str | Path, kwargs: dict[str, Any]):
    """Load a published file; `cls` is as for `load_pipeline`, and files named in `kwargs` may be hub paths as well."""
    kwargs = dict(kwargs)
    hub_options = take_hub_options(kwargs)
    published = [family.load() for family in FAMILIES if family.single_files]
    candidates = [family for family in published if issubclass(family, cls)] or published[:1]
    if len(candidates) == 1:  # what the file does not need to tell
        _check_family(cls, candidates[0], file, kwargs)
    path = local_file(file, hub_options)
    family = find_family_of_file(path) or candidates[0]
    _check_family(cls, family, file, kwargs)
    options = read_options(kwargs, family)
    loader = signature(family.load_published_files).parameters
    for name in options.keys() - loader.keys():
        raise ValueError(f"{name} is no option of a published file; convert it to a folder first, see sjd convert.")
    for name, parameter in loader.items():
        if parameter.default is Parameter.empty and name not in ("file", *options):
            raise ValueError(f"{file} needs {name}=, see {family.__name__}.load_published_files.")
    if options.get("vq_file") is not None:
        options["vq_file"] = local_file(options["vq_file"], hub_options)
    if options.get("dtype") == AUTO:
        options["dtype"] = published_dtype(path)
    if "hub_options" in loader:
        options["hub_options"] = elsewhere(hub_options)
    with foreign(path):
        return family.load_published_files(path, **options)


def find_pipeline(
    source: str | Path | None,
    hub_options: dict[str, Any],
    files: Sequence[str] = _FILES,
    subfolder: str | None = None,
) -> tuple[Path, type]:
    """The folder of a model and the class that loads it.

    Args:
        source: as `local_folder` takes it, or first of all the name of a bundled model; None is the default one. A
            `Path` is always a folder, and so is a text that begins with `./`.
        hub_options: for the download of a hub id.
        files: patterns of the files to download. The family is told by few of them, so that a model of another one
            is refused before its weights are fetched.
        subfolder: where in the folder the model is.
    """
    name = DEFAULT if source is None else source
    if isinstance(name, str) and name in BUNDLED and not subfolder:
        return bundled_folder(name), family_of_pipeline(BUNDLED[name].pipeline).load()
    inside = f"{subfolder.strip('/')}/" if subfolder else ""

    def fetch(patterns: Sequence[str]) -> Path:
        if isinstance(name, str) and name in BUNDLED:
            folder = bundled_folder(name)
        else:
            folder = local_folder(source, hub_options, [inside + pattern for pattern in patterns])
        if not (folder / inside).is_dir():
            raise OSError(f"{source} has no folder {subfolder}.")
        return folder / inside

    family = find_family(fetch(_HEADS), hub_options, _HEADS)
    return fetch(files), family


def find_base(folder: Path, hub_options: dict[str, Any], files: Sequence[str] = _FILES) -> Path | None:
    """The folder of the model that the adapter in `folder` builds on; None if it holds a whole model.

    Args:
        folder: of the model.
        hub_options: for the download of the base; `revision` is the adapter's own and not used.
        files: patterns of the files to download.
    """
    if not is_adapter(folder):
        return None
    adapter = Adapter.of_folder(folder)
    options = {name: value for name, value in hub_options.items() if name != "revision"}
    if adapter.config.get("revision"):
        options["revision"] = adapter.config["revision"]
    source = adapter.base
    try:
        found = bundled_folder(source) if source in BUNDLED else local_folder(source, options, files)
    except OSError as error:
        raise OSError(f"{folder} is an adapter on {source}, which can't be found: {error}") from error
    if is_adapter(found):
        raise ValueError(f"{folder} is an adapter on an adapter, {source}; save that one as a whole model first.")
    return found


def local_file(source: str | Path, hub_options: dict[str, Any]) -> Path:
    """A file on disk, downloaded first if `source` is `owner/name/path/in/repository`."""
    path = expanded(source)
    if path.is_file():
        return path
    text = _text(source, "file")
    if text.count("/") < 2 or text.startswith((".", "/", "~")):
        raise OSError(f"{text} is neither a file nor a file on the hub (owner/name/file).")
    owner, name, inside = text.split("/", 2)
    return download_file(f"{owner}/{name}", inside, hub_options)


def local_folder(source: str | Path, hub_options: dict[str, Any], files: Sequence[str] = _FILES) -> Path:
    """The folder of a model, downloaded first if `source` is a hub id and no folder here has that name."""
    path = expanded(source)
    if path.is_dir():
        return path
    if path.is_file():
        raise OSError(f"{path} is a file; from_pretrained takes the folder that holds config.json and its weights.")
    text = _text(source, "folder")
    if text.rstrip("/") in BUNDLED:
        raise OSError(f"there is no folder {text}; the bundled model is called {text.rstrip('/')}, without a slash.")
    if "/" not in text:
        raise OSError(
            f"{text} is neither a bundled model ({', '.join(BUNDLED)}) nor a folder; a hub id has the form owner/name."
        )
    if text.count("/") != 1 or text.startswith((".", "/", "~")) or text.endswith("/"):
        raise OSError(f"{text} is neither a folder nor a hub id (owner/name).")
    return download_folder(text, files, hub_options)


def _text(source: str | Path, kind: str) -> str:
    """What is not on disk, as a name. Raises `OSError` for a `Path`, which means nothing else."""
    if not isinstance(source, Path):
        return source
    name, hint = source.as_posix(), ""
    if name in BUNDLED or ("/" in name and not name.startswith((".", "/", "~"))):
        hint = f"; give a bundled model, or what is on the hub, as text: {name!r}"
    raise OSError(f"{source}: there is no such {kind}, and a Path always means one on disk{hint}.")


def find_family(folder: Path, hub_options: dict[str, Any] | None = None, files: Sequence[str] = _FILES) -> type:
    """The pipeline class for a folder, read from its model_index.json or config.json, or from those of its base.

    Args:
        folder: of the model.
        hub_options: for the download of an adapter's base; None downloads nothing.
        files: patterns of the files to download.
    """
    base = find_base(folder, {"local_files_only": True} if hub_options is None else hub_options, files)
    if base is not None:
        return find_family(base)
    index, config = folder / "model_index.json", folder / "config.json"
    if index.is_file():
        parts = read_object(index)
        name = parts.get("_class_name")
        family = family_of_pipeline(name)
        if family is None:
            known = sorted(known.pipeline for known in FAMILIES)
            raise ValueError(
                f"{index} is for {name if isinstance(name, str) else shown(name)}; known are {', '.join(known)}."
            )
        check_parts(index, parts)
        for file in folder.glob("*/config.json"):
            _check_sizes(file, read_object(file))
        return family.load()
    if config.is_file():
        settings = read_object(config)
        _check_sizes(config, settings)
        model_type = settings.get("model_type")
        family = family_of_type(model_type)
        if family is None:
            known = sorted(known.model_type for known in FAMILIES if known.model_type)
            better = INSTEAD.get(model_type) if isinstance(model_type, str) else None
            hint = f"this package loads the same models as {better}" if better else f"known are {', '.join(known)}"
            raise ValueError(f"{config} has model_type {shown(model_type)}; {hint}.")
        return family.load()
    published = [file for pattern in ("*.pt", "*.pth") for file in folder.glob(pattern)]
    hint = "; load a published file with from_single_file" if published else ""
    if "anole" in str(folder).lower():
        hint = f"; this package loads Anole as {INSTEAD['anole']}"
    raise OSError(f"{folder} has neither model_index.json nor config.json, so it holds no model{hint}.")


def find_family_of_file(file: Path) -> type | None:
    """The pipeline class for a published file, read from the names of its weights; None where they tell none."""
    family = family_of_weights(published_names(file))
    return family and family.load()


def _check_family(cls: type, family: type, source: str | Path, options: dict[str, Any]) -> None:
    """Raise `ValueError` if the caller's class or options are for models of another family than `source` is of."""
    if not issubclass(family, cls):
        raise ValueError(f"{source} holds a {family.__name__}, not a {cls.__name__}; load it with {family.__name__}.")
    for name in options.keys() - loader_options(family) - {*COMMON}:
        for other in FAMILIES:
            if name in loader_options(other.load()):
                raise ValueError(f"{name} is an option of {other.pipeline}; {source} holds a {family.__name__}.")


def _check_sizes(file: Path, settings: dict[str, Any]) -> None:
    """Raise `ValueError` for a configuration of more layers, or of larger sizes, than any model has."""
    rest = list(settings.items())
    while rest:
        name, value = rest.pop()
        if isinstance(value, dict):
            rest += value.items()
        elif isinstance(value, list):
            rest += [(name, entry) for entry in value]
        elif isinstance(value, int | float):
            most = MOST_LAYERS if re.search("layer|block|depth", str(name)) else LARGEST
            if value > most:
                raise ValueError(f"{file} has {shown(name)}: {shown(value)}, which is more than any model has.")


@contextmanager
def foreign(source: Path) -> Iterator[None]:
    """A block in which libraries read files of unknown origin; what they stumble over there is a `ValueError`."""
    try:
        yield
    except JSONDecodeError as error:
        raise ValueError(f"{source} holds a file that is not valid JSON: {error}.") from error
    except (OSError, ValueError, ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of which types it may be no library says
        text = " ".join(str(error).split())
        raise ValueError(f"{source} can't be loaded: {type(error).__name__}, {text[:300]}") from error
