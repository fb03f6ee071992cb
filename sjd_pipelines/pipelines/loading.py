"""Where a pipeline comes from: bundled checkpoint, folder or hub; diffusers or transformers layout; which family."""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import SafetensorError, safe_open

from ..models import DraftReviser, EagleDrafter
from ..schedulers import RevisedJacobiScheduler

BUNDLED_CHECKPOINT = Path(__file__).parent.parent / "bundled" / "emoji_janus"

# config.json's model_type -> (module, class). A string, because a family imports the base class, which imports this.
FAMILIES: dict[str, tuple[str, str]] = {
    "chameleon": ("sjd_pipelines.pipelines.chameleon", "SJDChameleonPipeline"),
    "emu3": ("sjd_pipelines.pipelines.emu3", "SJDEmu3Pipeline"),
    "janus": ("sjd_pipelines.pipelines.janus", "SJDJanusPipeline"),
}
# Published as single files; its folders are always in diffusers layout.
LLAMAGEN = ("sjd_pipelines.pipelines.llamagen", "SJDLlamaGenPipeline")

# Beside the files of a transformers folder, as diffusers lays components out.
HELPERS: dict[str, type[EagleDrafter | DraftReviser]] = {"drafter": EagleDrafter, "reviser": DraftReviser}

_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def load_pipeline(cls: type, source: str | Path | None, kwargs: dict[str, Any]):
    """Find the family of `source` and load it; `cls` is the base class or the family the caller expects."""
    hub_options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
    folder = local_folder(source, hub_options)
    family = find_family(folder)
    _check_family(cls, family, folder)
    for file in folder.rglob("*.safetensors"):
        _check_safetensors(file)
    if (folder / "model_index.json").is_file():
        return family.load_diffusers_folder(folder, **kwargs)
    if not any(folder.glob("*.safetensors")):
        raise OSError(f"{folder} has no .safetensors weights; pickled weights are not loaded, convert them first.")
    pipe = family.load_transformers_folder(folder, **kwargs)
    for name, helper in HELPERS.items():
        if (folder / name).is_dir():
            network = load_helper(helper, folder / name, pipe.dtype)
            pipe.register_modules(**{name: network.to(pipe._execution_device)})
    if kwargs.get("scheduler") is None and pipe.reviser is not None:
        pipe.register_modules(scheduler=RevisedJacobiScheduler())
    return pipe


def load_single_file(cls: type, file: str | Path, kwargs: dict[str, Any]):
    """Load a published LlamaGen file; files named in `kwargs` may be hub paths as well."""
    hub_options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
    family = _import(*LLAMAGEN)
    _check_family(cls, family, file)
    if kwargs.get("vq_file") is not None:
        kwargs["vq_file"] = local_file(kwargs["vq_file"], hub_options)
    return family.load_published_files(local_file(file, hub_options), **kwargs)


def local_file(source: str | Path, hub_options: dict[str, Any]) -> Path:
    """A file on disk, downloaded first if `source` is `owner/name/path/in/repository`."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    text = str(source)
    if text.count("/") < 2 or text.startswith((".", "/", "~")):
        raise OSError(f"{text} is neither a file nor a file on the hub (owner/name/file).")
    owner, name, inside = text.split("/", 2)
    return Path(hf_hub_download(f"{owner}/{name}", inside, **hub_options))


def local_folder(source: str | Path | None, hub_options: dict[str, Any], files: Sequence[str] = _FILES) -> Path:
    """The folder of a model, downloaded first if `source` is a hub id; None is the bundled checkpoint."""
    if source is None:
        return BUNDLED_CHECKPOINT
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise OSError(f"{path} is a file; from_pretrained takes the folder that holds config.json and its weights.")
    text = str(source)
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise OSError(f"{text} is neither a folder nor a hub id (owner/name).")
    return Path(snapshot_download(text, allow_patterns=list(files), **hub_options))


def find_family(folder: Path) -> type:
    """The pipeline class for a folder, read from its model_index.json or config.json."""
    index, config = folder / "model_index.json", folder / "config.json"
    classes = {name: (module, name) for module, name in (*FAMILIES.values(), LLAMAGEN)}
    if index.is_file():
        name = _read_json(index).get("_class_name")
        if name not in classes:
            raise ValueError(f"{index} is for {name}; known are {', '.join(sorted(classes))}.")
        module, name = classes[name]
    elif config.is_file():
        model_type = _read_json(config).get("model_type")
        if model_type not in FAMILIES:
            raise ValueError(f"{config} has model_type {model_type!r}; known are {', '.join(sorted(FAMILIES))}.")
        module, name = FAMILIES[model_type]
    else:
        hint = "; load a published LlamaGen file with from_single_file" if any(folder.glob("*.pt")) else ""
        raise OSError(f"{folder} has neither model_index.json nor config.json, so it holds no model{hint}.")
    return _import(module, name)


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


def load_helper(cls: type, folder: Path, dtype: torch.dtype) -> EagleDrafter | DraftReviser:
    """A network in a folder of its own; raises `ValueError` where a weight is missing or of another shape."""
    network, report = cls.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
    check_complete(folder, set(report["missing_keys"]))
    # Past diffusers' own `to`, which warns of float32 modules that there are none of.
    return torch.nn.Module.to(network, dtype).eval()


def _import(module: str, name: str) -> type:
    return getattr(import_module(module), name)


def _check_family(cls: type, family: type, source: str | Path) -> None:
    if not issubclass(family, cls):
        raise ValueError(f"{source} holds a {family.__name__}, not a {cls.__name__}; load it with {family.__name__}.")


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
