"""Models from one layout to another: published files to a diffusers folder, and LlamaGen back again."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from diffusers import VQModel

from ..models import LlamaGenTransformer, published_llamagen_weights, published_vq_weights, write_published_file
from .autoregressive import SJDAutoRegressivePipeline


def convert_model(source: str | Path, target: str | Path, **options: Any) -> Path:
    """Write a model as a diffusers-layout folder of safetensors, whole or not at all.

    Args:
        source: a published LlamaGen file (a path or `owner/name/file.pt`), or a folder or hub id that
            `from_pretrained` takes.
        target: the new folder; must not exist.
        **options: of `from_single_file` (`vq_file`, `image_size`, `text_encoder`, ...) or of `from_pretrained`
            (`dtype`, and for Chameleon `vq_model`, `recipe`, `resolution`).

    Raises:
        FileExistsError: `target` exists.
        OSError, ValueError: as when loading.
    """
    target = Path(target).expanduser()
    if target.exists():
        raise FileExistsError(f"{target} exists; choose a new folder.")
    single = Path(str(source)).suffix in (".pt", ".pth", ".ckpt")
    load = SJDAutoRegressivePipeline.from_single_file if single else SJDAutoRegressivePipeline.from_pretrained
    pipe = load(source, **options)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        pipe.save_pretrained(temporary)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def export_llamagen(source: str | Path, target: str | Path) -> list[Path]:
    """Write the two files that LlamaGen's own code loads, from a diffusers-layout folder of a LlamaGen.

    Args:
        source: the folder.
        target: a folder for the files, whose names state the picture size as the published ones do.

    Returns:
        The transformer's file and the image tokenizer's.

    Raises:
        OSError: `source` is not such a folder.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    transformer = LlamaGenTransformer.from_pretrained(source / "transformer")
    vq_model = VQModel.from_pretrained(source / "vq_model")
    scale = 2 ** (len(vq_model.config.block_out_channels) - 1)
    kind = "t2i" if transformer.config.num_classes is None else "c2i"
    file = target / f"{kind}_{transformer.config.sample_size * scale}.pt"
    vq_file = target / f"vq_ds{scale}_{kind}.pt"
    write_published_file(published_llamagen_weights(transformer), file)
    write_published_file(published_vq_weights(vq_model, "llamagen"), vq_file)
    return [file, vq_file]
