"""Where a pipeline comes from: bundled checkpoint, folder or hub; diffusers or transformers layout; which family."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

BUNDLED_CHECKPOINT = Path(__file__).parent.parent / "bundled" / "emoji_janus"

# config.json's model_type -> (module, class). A string, because a family imports the base class, which imports this.
FAMILIES: dict[str, tuple[str, str]] = {
    "janus": ("sjd_pipelines.pipelines.janus", "SJDJanusPipeline"),
}

_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def load_pipeline(cls: type, source: str | Path | None, kwargs: dict[str, Any]):
    """Find the family of `source` and load it; `cls` is the base class or the family the caller expects."""
    hub_options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
    folder = _local_folder(source, hub_options)
    family = _family(folder)
    if not issubclass(family, cls):
        raise ValueError(f"{folder} holds a {family.__name__}, not a {cls.__name__}; load it with {family.__name__}.")
    for file in folder.rglob("*.safetensors"):
        _check_safetensors(file)
    if (folder / "model_index.json").is_file():
        return family.load_diffusers_folder(folder, **kwargs)
    return family.load_transformers_folder(folder, **kwargs)


def _local_folder(source: str | Path | None, hub_options: dict[str, Any]) -> Path:
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
    return Path(snapshot_download(text, allow_patterns=_FILES, **hub_options))


def _family(folder: Path) -> type:
    index, config = folder / "model_index.json", folder / "config.json"
    classes = {name: (module, name) for module, name in FAMILIES.values()}
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
        if not any(folder.glob("*.safetensors")):
            raise OSError(f"{folder} has no .safetensors weights; pickled weights are not loaded, convert them first.")
    else:
        raise OSError(f"{folder} has neither model_index.json nor config.json, so it holds no model.")
    return getattr(import_module(module), name)


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
