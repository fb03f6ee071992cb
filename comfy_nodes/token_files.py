"""Tokens as files: what was drawn can be kept, and decoded again without drawing it again."""

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sjd_pipelines.disk import replacing

from . import runtime
from .runtime import Model, show_text
from .schema import schema
from .types import ModelType, Origin, Tokens, TokensType

ENDING = ".sjd.safetensors"
NONE_YET = "none saved yet"


class SJDSaveTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDSaveTokens",
            display_name="SJD Save Tokens",
            category="SJD/image",
            description="Keeps drawn tokens as a small file in ComfyUI's output folder. SJD Load Tokens reads it.",
            search_aliases=["save latent", "autoregressive"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                TokensType.Input("tokens", tooltip="Tokens from SJD Sampler."),
                io.String.Input(
                    "filename_prefix",
                    default="sjd/tokens",
                    tooltip="How the file's name begins; folders before it are made. A number is added.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, tokens: Tokens, filename_prefix: str) -> io.NodeOutput:
        file = runtime.output_file(filename_prefix, ENDING)
        save_tokens(tokens, file)
        show_text(cls.hidden and cls.hidden.unique_id, f"saved as {file}")
        return io.NodeOutput()


class SJDLoadTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        options = list(runtime.saved_files(ENDING)) or [NONE_YET]
        return schema(
            node_id="SJDLoadTokens",
            display_name="SJD Load Tokens",
            category="SJD/image",
            description="Reads tokens that SJD Save Tokens wrote, for SJD Decode Tokens or SJD Compare.",
            search_aliases=["load latent", "autoregressive"],
            inputs=[
                ModelType.Input("model", tooltip="The model that drew them; tokens of another codebook are refused."),
                io.Combo.Input(
                    "file",
                    options=options,
                    default=options[0],
                    tooltip="A file in ComfyUI's output or input folder, the newest first; press R to see new ones.",
                ),
            ],
            outputs=[TokensType.Output("TOKENS", display_name="tokens", tooltip="The tokens, as they were drawn.")],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool:
        if file is not None:
            _find(file)  # raised, as of loaders
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **others: Any) -> str:
        return f"{file} {_find(file).stat().st_mtime_ns}"

    @classmethod
    def execute(cls, model: Model, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_tokens(model, _find(file)))


def save_tokens(tokens: Tokens, file: Path) -> None:
    """Write tokens, and by what their model is known again."""
    content = {"ids": tokens.ids.contiguous(), "codebook": tokens.codebook.sample.contiguous()}
    about = {"codebook": tokens.codebook.name, "height": str(tokens.height), "width": str(tokens.width)}
    with replacing(file) as temporary:
        save_file(content, temporary, metadata=about)


def load_tokens(model: Model, file: Path) -> Tokens:
    """Read tokens of a model.

    Raises:
        ValueError: the file holds none, or those of another model.
    """
    try:
        with safe_open(file, framework="pt") as content:
            about = content.metadata()
            ids = content.get_tensor("ids")
            codebook = Origin(about["codebook"], content.get_tensor("codebook"))
            height, width = int(about["height"]), int(about["width"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is cut short, or was not written by SJD Save Tokens.") from error
    if codebook.name != model.codebook.name or not codebook.same_as(model.codebook):
        raise ValueError(
            f"{file} holds tokens of the codebook {codebook.name}, the model has {model.codebook.name}: connect the "
            "model that drew them."
        )
    layout = model.pipe.image_layout(height, width)
    if ids.dtype != torch.int64 or ids.ndim != 2 or ids.shape[1] != layout.rows * layout.columns or not len(ids):
        raise ValueError(f"{file} holds no pictures of {width} x {height} pixels.")
    if ids.min() < 0 or ids.max() >= layout.codebook_size:
        raise ValueError(f"{file} holds tokens that the model does not have.")
    return Tokens(ids, layout, height, width, model.codebook)


def _find(name: str) -> Path:
    """A saved file; raises `ValueError` if there is none of that name."""
    found = runtime.saved_files(ENDING).get(name)
    if found is None:
        raise ValueError(f"No tokens are saved as '{name}'. Choose others, or save some with SJD Save Tokens.")
    return found
