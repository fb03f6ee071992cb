"""Where a pipeline comes from: bundled by name, folder or hub; diffusers or transformers layout; which family."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import GenerationConfig

from ..bundled import BUNDLED, DEFAULT, bundled_folder
from ..companions import COMPANIONS
from ..disk import read_object
from ..models import published_names
from ..schedulers import SCHEDULERS
from .adapters import Adapter, is_adapter
from .families import FAMILIES, family_of_pipeline, family_of_type, family_of_weights

_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def load_pipeline(cls: type, source: str | Path | None, kwargs: dict[str, Any]):
    """Find the family of `source` and load it; `cls` is the base class or the family the caller expects."""
    hub_options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
    folder, family = find_pipeline(source, hub_options)
    _check_family(cls, family, folder.name if source is None else source, kwargs)
    base = find_base(folder, hub_options)
    for part in (folder, base):
        for file in part.rglob("*.safetensors") if part else ():
            _check_safetensors(file)
    return _load_folder(folder, family, kwargs) if base is None else _load_adapter(folder, base, family, kwargs)


def _load_folder(folder: Path, family: type, kwargs: dict[str, Any]):
    """A whole model; its files have been checked."""
    if (folder / "model_index.json").is_file():
        return family.load_diffusers_folder(folder, **kwargs)
    if not any(folder.glob("*.safetensors")):
        raise OSError(f"{folder} has no .safetensors weights; pickled weights are not loaded, convert them first.")
    kwargs = dict(kwargs)
    scheduler = kwargs.pop("scheduler", None)
    pipe = family(**family.load_transformers_parts(folder, **kwargs), scheduler=scheduler)
    _load_companions(pipe, folder)
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


def _load_companions(pipe: Any, folder: Path) -> None:
    """Give a pipeline the companions that `folder` has."""
    for name, kind in COMPANIONS.items():
        if (folder / name).is_dir():
            network = load_companion(kind.network, folder / name, pipe.dtype)
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
    hub_options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
    published = [family.load() for family in FAMILIES if family.single_files]
    candidates = [family for family in published if issubclass(family, cls)] or published[:1]
    if len(candidates) == 1:  # what the file does not need to tell
        _check_family(cls, candidates[0], file, kwargs)
    path = local_file(file, hub_options)
    family = find_family_of_file(path) or candidates[0]
    _check_family(cls, family, file, kwargs)
    if kwargs.get("vq_file") is not None:
        kwargs["vq_file"] = local_file(kwargs["vq_file"], hub_options)
    return family.load_published_files(path, **kwargs)


def find_pipeline(
    source: str | Path | None, hub_options: dict[str, Any], files: Sequence[str] = _FILES
) -> tuple[Path, type]:
    """The folder of a model and the class that loads it.

    Args:
        source: as `local_folder` takes it, or first of all the name of a bundled model; None is the default one. A
            `Path` is always a folder, and so is a text that begins with `./`.
        hub_options: for the download of a hub id.
        files: patterns of the files to download.
    """
    name = DEFAULT if source is None else source
    if isinstance(name, str) and name in BUNDLED:
        return bundled_folder(name), family_of_pipeline(BUNDLED[name].pipeline).load()
    folder = local_folder(source, hub_options, files)
    return folder, find_family(folder, hub_options, files)


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
    path = Path(source).expanduser()
    if path.is_file():
        return path
    text = _text(source, "file")
    if text.count("/") < 2 or text.startswith((".", "/", "~")):
        raise OSError(f"{text} is neither a file nor a file on the hub (owner/name/file).")
    owner, name, inside = text.split("/", 2)
    return Path(hf_hub_download(f"{owner}/{name}", inside, **hub_options))


def local_folder(source: str | Path, hub_options: dict[str, Any], files: Sequence[str] = _FILES) -> Path:
    """The folder of a model, downloaded first if `source` is a hub id and no folder here has that name."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise OSError(f"{path} is a file; from_pretrained takes the folder that holds config.json and its weights.")
    text = _text(source, "folder")
    if "/" not in text:
        raise OSError(
            f"{text} is neither a bundled model ({', '.join(BUNDLED)}) nor a folder; a hub id has the form owner/name."
        )
    if text.count("/") != 1 or text.startswith((".", "/", "~")) or text.endswith("/"):
        raise OSError(f"{text} is neither a folder nor a hub id (owner/name).")
    return Path(snapshot_download(text, allow_patterns=list(files), **hub_options))


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
        name = _read_json(index).get("_class_name")
        family = family_of_pipeline(name)
        if family is None:
            known = sorted(known.pipeline for known in FAMILIES)
            raise ValueError(f"{index} is for {name}; known are {', '.join(known)}.")
        return family.load()
    if config.is_file():
        model_type = _read_json(config).get("model_type")
        family = family_of_type(model_type)
        if family is None:
            known = sorted(known.model_type for known in FAMILIES if known.model_type)
            raise ValueError(f"{config} has model_type {model_type!r}; known are {', '.join(known)}.")
        return family.load()
    published = [file for pattern in ("*.pt", "*.pth") for file in folder.glob(pattern)]
    hint = "; load a published file with from_single_file" if published else ""
    raise OSError(f"{folder} has neither model_index.json nor config.json, so it holds no model{hint}.")


def find_family_of_file(file: Path) -> type | None:
    """The pipeline class for a published file, read from the names of its weights; None where they tell none."""
    family = family_of_weights(published_names(file))
    return family and family.load()


def load_transformers_model(cls: type, folder: Path, **kwargs: Any) -> Any:
    """A transformers model from safetensors; raises `ValueError` where a weight is missing or of another shape."""
    model, absent = load_available_weights(cls, folder, **kwargs)
    check_complete(folder, absent)
    return model


def load_available_weights(cls: type, folder: Path, **kwargs: Any) -> tuple[Any, set[str]]:
    """A transformers model, and the names of its weights that the files lack or hold in another shape."""
    model, report = cls.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **kwargs)
    mismatched = {name for name, *_ in report["mismatched_keys"]}  # their shapes are reported as well
    return model, mismatched.union(report["missing_keys"])


def check_complete(folder: Path, absent: set[str]) -> None:
    """Raise `ValueError` if there are `absent` weights."""
    if absent:
        some = sorted(absent)[:3]
        raise ValueError(f"{folder} lacks {len(absent)} weights of the model its config describes: {some}.")


def load_companion(cls: type[torch.nn.Module], folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """A network in a folder of its own; raises `ValueError` where a weight is missing or of another shape."""
    network, report = cls.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
    check_complete(folder, set(report["missing_keys"]))
    # Past diffusers' own `to`, which warns of float32 modules that there are none of.
    return torch.nn.Module.to(network, dtype).eval()


def _check_family(cls: type, family: type, source: str | Path, options: dict[str, Any]) -> None:
    """Raise `ValueError` if the caller's class or options are for models of another family than `source` is of."""
    if not issubclass(family, cls):
        raise ValueError(f"{source} holds a {family.__name__}, not a {cls.__name__}; load it with {family.__name__}.")
    for name in options.keys() - _loader_options(family):
        for other in FAMILIES:
            if name in _loader_options(other.load()):
                raise ValueError(f"{name} is an option of {other.pipeline}; {source} holds a {family.__name__}.")


def _loader_options(family: type) -> set[str]:
    """What the constructor and the loaders of a family can be told."""
    names = ("__init__", "load_transformers_parts", "load_published_files")
    loaders = [getattr(family, name) for name in names if hasattr(family, name)]
    return {name for loader in loaders for name in inspect.signature(loader).parameters}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OSError(f"{file} is not valid JSON: {error}.") from error


def _check_safetensors(file: Path) -> None:
    """Raise `OSError` for a truncated or foreign file; reads the header alone."""
    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise OSError(f"{file} is not a complete safetensors file ({error}); download it again.") from error
