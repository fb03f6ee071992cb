"""What a flow is and needs, and the lines that are told of every model."""

import textwrap
from dataclasses import dataclass
from typing import Any

import torch

from .tarflow import TarFlowPipeline

COLUMNS = 100  # of lists of words


@dataclass
class FlowInfo:
    """A flow, as `sjd info` prints it.

    Attributes:
        source: where it was looked for.
        pipeline: class name of its pipeline.
        parameters: component -> number of parameters.
        dtype: what `cache_bytes` are computed for.
        sampling: defaults of the sampling arguments.
        height: pixels.
        width: pixels.
        blocks: K.
        patches: T, of a picture.
        passes: of sequential sampling, one block each.
        cache_bytes: keys and values of one block of one guided picture (two rows).
        classes: names, or numbers where they have none; empty for an unconditional model.
    """

    source: str
    pipeline: str
    parameters: dict[str, int]
    dtype: str
    sampling: dict[str, Any]
    height: int
    width: int
    blocks: int
    patches: int
    passes: int
    cache_bytes: int
    classes: list[str]


def flow_info(pipe: TarFlowPipeline, source: str, dtype: torch.dtype) -> FlowInfo:
    """Describe a flow whose weights need not be there."""
    model, config = pipe.transformer, pipe.transformer.config
    inputs = model.num_tokens - 1
    return FlowInfo(
        source=source,
        pipeline=type(pipe).__name__,
        parameters=parameter_counts(pipe),
        dtype=str(dtype).removeprefix("torch."),
        sampling=pipe.sampling_defaults(),
        height=config.sample_size,
        width=config.sample_size,
        blocks=config.num_blocks,
        patches=model.num_tokens,
        passes=config.num_blocks * inputs,
        cache_bytes=2 * 2 * config.layers_per_block * config.hidden_size * inputs * dtype.itemsize,
        classes=pipe.class_names() or ([f"0 to {config.num_classes - 1}"] if config.num_classes else []),
    )


def format_flow_info(info: FlowInfo) -> str:
    """The lines that `sjd info` prints of a flow."""
    lines = [
        *heading(info),
        f"picture:    {info.width} x {info.height} pixels, {info.patches} patches in {info.blocks} blocks",
        f"passes:     {info.passes} one after the other (sequential); solvers take a tenth and less",
        f"cache:      {mebibytes(info.cache_bytes)} in {info.dtype}, two rows per guided picture; "
        f"overlapping keeps up to {info.blocks}",
    ]
    return "\n".join(lines + (["", *wrapped("classes", info.classes)] if info.classes else []))


def parameter_counts(pipe: Any) -> dict[str, int]:
    """Component -> number of parameters."""
    return {
        name: sum(parameter.numel() for parameter in component.parameters())
        for name, component in pipe.components.items()
        if isinstance(component, torch.nn.Module)
    }


def heading(info: Any, remark: str = "") -> list[str]:
    """The lines that are told of every model, with a remark behind its name."""
    parts = ", ".join(f"{name} {_millions(count)}" for name, count in info.parameters.items())
    sampling = ", ".join(f"{name} {value}" for name, value in info.sampling.items())
    return [
        f"{info.source}: {info.pipeline}{remark}",
        f"parameters: {_millions(sum(info.parameters.values()))} ({parts})",
        f"sampling:   {sampling}",
    ]


def wrapped(kind: str, words: list[str]) -> list[str]:
    """A list of words, as wide as a terminal."""
    return textwrap.wrap(f"{kind}: {', '.join(words)}", COLUMNS, subsequent_indent="  ")


def mebibytes(count: int) -> str:
    return f"{count / 2**20:,.2f} MiB" if count < 2**24 else f"{count / 2**20:,.0f} MiB"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"
