"""What a model is and needs, told from its configuration alone: no weight is read and no memory allocated."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from tokenizers import Tokenizer
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from ..bundled import DEFAULT
from ..companions import COMPANIONS
from ..decoding import ImageTokenLayout
from ..disk import read_object
from .adapters import Adapter
from .autoregressive import SJDAutoRegressivePipeline
from .flow_info import FlowInfo, flow_info, format_flow_info, heading, mebibytes, parameter_counts, wrapped
from .loading import find_base, find_pipeline, foreign
from .tarflow import TarFlowPipeline
from .weights import LIBRARIES
from .words import word_list

CONFIGURATION = ["*.json"]
# Speculative Jacobi decoding of Lumina-mGPT with window 16 took 1035 passes for 2392 tokens (Teng et al. 2024).
PUBLISHED_TOKENS_PER_PASS = 2.3


@dataclass
class SizeInfo:
    """One picture size.

    Attributes:
        height: pixels.
        width: pixels.
        rows: of the token grid.
        columns: of the token grid, row ends not counted.
        tokens: forward passes of sequential decoding.
        expected_passes: of speculative Jacobi decoding, at the speed-up published for Lumina-mGPT; of a model that
            makes several tokens at once those that it takes without guesses.
        parallel: tokens that the model makes at once.
        canvas_bytes: keys and values of the image tokens of one guided picture (two rows).
    """

    height: int
    width: int
    rows: int
    columns: int
    tokens: int
    expected_passes: int
    parallel: int
    canvas_bytes: int


@dataclass
class ModelInfo:
    """A model, as `sjd info` prints it.

    Attributes:
        source: where it was looked for.
        pipeline: class name of its pipeline.
        parameters: component -> number of parameters.
        dtype: what `canvas_bytes` are computed for.
        sampling: defaults of the sampling arguments.
        prompt_token_bytes: keys and values of one prompt token of one guided picture, on top of `canvas_bytes`.
        sizes: the supported sizes, the default first.
        words: what the model knows, where it draws classes with names or its vocabulary is one of whole words: kind of
            words -> words.
        base: the model that it builds on; None for a whole model.
    """

    source: str
    pipeline: str
    parameters: dict[str, int]
    dtype: str
    sampling: dict[str, Any]
    prompt_token_bytes: int
    sizes: list[SizeInfo]
    words: dict[str, list[str]] = field(default_factory=dict)
    base: str | None = None


def inspect_model(
    source: str | Path | None = None, dtype: torch.dtype = torch.float32, **hub_options: Any
) -> ModelInfo | FlowInfo:
    """Describe a model before anything of it is allocated; of a hub model only the configuration is downloaded.

    Args:
        source: name of a bundled model, folder or hub id; None is the default bundled model.
        dtype: that the model would be loaded in.
        **hub_options: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`.

    Raises:
        OSError: nothing is there, or its configuration cannot be read.
        ValueError: it is of a family that this package does not know.
    """
    folder, family = find_pipeline(source, hub_options, CONFIGURATION)
    base = find_base(folder, hub_options, CONFIGURATION)
    with foreign(folder):
        return _describe(source, folder, base, skeleton(base or folder, family, dtype), dtype)


def _describe(
    source: str | Path | None,
    folder: Path,
    base: Path | None,
    pipe: SJDAutoRegressivePipeline | TarFlowPipeline,
    dtype: torch.dtype,
) -> ModelInfo | FlowInfo:
    """What a pipeline without weights tells of its model."""
    if isinstance(pipe, TarFlowPipeline):
        return flow_info(pipe, DEFAULT if source is None else str(source), dtype)
    if base:  # what there is beside an adapter takes the place of what the base has
        pipe.register_modules(**companions(folder, dtype))
        if (folder / "generation_config.json").is_file():
            pipe.model.generation_config = GenerationConfig.from_pretrained(folder)
    slot_bytes = 2 * pipe.canvas_numbers() * dtype.itemsize  # a guided picture has two rows
    return ModelInfo(
        source=DEFAULT if source is None else str(source),
        pipeline=type(pipe).__name__,
        parameters=parameter_counts(pipe),
        dtype=str(dtype).removeprefix("torch."),
        sampling=pipe.sampling_defaults(),
        prompt_token_bytes=slot_bytes,
        sizes=[_size_info(pipe, *size, slot_bytes) for size in pipe.image_sizes()],
        words=_classes(pipe) or _words(folder) or _words(base or folder),
        base=str(Adapter.of_folder(folder).base) if base else None,
    )


def format_info(info: ModelInfo | FlowInfo) -> str:
    """The lines that `sjd info` prints."""
    if isinstance(info, FlowInfo):
        return format_flow_info(info)
    lines = [
        *heading(info, f", an adapter on {info.base}" if info.base else ""),
        f"canvas:     {info.dtype}, two rows per guided picture, plus {mebibytes(info.prompt_token_bytes)} "
        "per prompt token",
        "",
        f"  height   width  tokens (rows x columns)  {_passes_of(info.sizes):>24}    canvas",
    ]
    for size in info.sizes:
        grid = f"{size.tokens} ({size.rows} x {size.columns})"
        passes = f"{'' if size.parallel > 1 else 'about '}{size.expected_passes}"
        lines.append(f"{size.height:>8}{size.width:>8}  {grid:<24} {passes:>24}{mebibytes(size.canvas_bytes):>14}")
    for kind, words in info.words.items():
        lines += ["", *wrapped(kind, words)]
    return "\n".join(lines)


def skeleton(folder: Path, family: type, dtype: torch.dtype) -> SJDAutoRegressivePipeline | TarFlowPipeline:
    """The pipeline in `folder` on the meta device: right shapes, no weights, no tokenizer."""
    with torch.device("meta"):
        if (folder / "model_index.json").is_file():
            parts = dict(_diffusers_parts(folder, dtype))
        else:
            model = inspect.signature(family).parameters["model"].annotation
            config = AutoConfig.from_pretrained(folder)
            parts = {"model": model._from_config(config, dtype=dtype)} | family.settings_of_folder(folder)
            if (folder / "generation_config.json").is_file():  # holds the checkpoint's sampling defaults
                parts["model"].generation_config = GenerationConfig.from_pretrained(folder)
            parts |= companions(folder, dtype)
    required = [
        name
        for name, parameter in inspect.signature(family).parameters.items()
        if parameter.default is inspect.Parameter.empty
    ]
    return family(**dict.fromkeys(required) | parts | {"scheduler": None})


def companions(folder: Path, dtype: torch.dtype) -> dict[str, torch.nn.Module]:
    """The companions that a folder without model_index.json has, on the meta device."""
    with torch.device("meta"):
        return {
            name: _network(kind, folder / name, dtype) for name, kind in COMPANIONS.items() if (folder / name).is_dir()
        }


def _network(cls: type[ModelMixin], folder: Path, dtype: torch.dtype) -> ModelMixin:
    """A network of diffusers' kind, as its configuration describes it, on the device that is set."""
    # Past diffusers' own `to`, which warns of float32 modules that there are none of.
    return torch.nn.Module.to(cls.from_config(cls.load_config(folder)), dtype)


def _diffusers_parts(folder: Path, dtype: torch.dtype) -> Iterator[tuple[str, Any]]:
    """Networks on the device that is set, and settings, of a diffusers-layout folder; None for everything else."""
    for name, entry in read_object(folder / "model_index.json").items():
        if name.startswith("_"):
            continue
        if not isinstance(entry, list) or len(entry) != 2:
            yield name, entry
            continue
        library, class_name = entry
        component = getattr(import_module(library), class_name, None) if library in LIBRARIES else None
        if not isinstance(component, type) or not issubclass(component, ModelMixin | PreTrainedModel):
            yield name, None
        elif not (folder / name).is_dir():  # else a library would look for it on the hub
            raise OSError(f"{folder} has no folder {name}, which its model_index.json names.")
        elif issubclass(component, ModelMixin):
            yield name, _network(component, folder / name, dtype)
        else:
            network = component._from_config(AutoConfig.from_pretrained(folder / name), dtype=dtype)
            if (folder / name / "generation_config.json").is_file():  # holds the checkpoint's sampling defaults
                network.generation_config = GenerationConfig.from_pretrained(folder / name)
            yield name, network


def _size_info(pipe: SJDAutoRegressivePipeline, height: int, width: int, slot_bytes: int) -> SizeInfo:
    layout: ImageTokenLayout = pipe.image_layout(height, width)
    return SizeInfo(
        height=height,
        width=width,
        rows=layout.rows,
        columns=layout.columns,
        tokens=layout.num_tokens,
        expected_passes=layout.sequential_passes
        if layout.parallel > 1
        else round(layout.num_tokens / PUBLISHED_TOKENS_PER_PASS),
        parallel=layout.parallel,
        canvas_bytes=layout.num_tokens * slot_bytes,
    )


def _passes_of(sizes: list[SizeInfo]) -> str:
    """What `expected_passes` are the passes of."""
    return "passes" if any(size.parallel > 1 for size in sizes) else "passes of published SJD"


def _classes(pipe: SJDAutoRegressivePipeline) -> dict[str, list[str]]:
    names = pipe.class_names()
    return {f"{len(names)} classes": names} if names else {}


def _words(folder: Path) -> dict[str, list[str]]:
    """The words of a vocabulary of whole words: by kind, where a file tells the kinds, and all of them."""
    file = next(iter(sorted(folder.rglob("tokenizer.json"))), None)
    if file is None:
        return {}
    try:
        words = word_list(Tokenizer.from_file(str(file)))
    except Exception as error:  # the only type that the library raises
        raise OSError(f"{file} is not a tokenizer: {error}.") from error
    kinds = folder / "words.json"  # as the bundled models have it
    told = read_object(kinds) if kinds.is_file() else {}
    return told | {f"all {len(words)} words": words} if words else {}
