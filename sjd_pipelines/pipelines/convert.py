"""Models from one layout to another: published files to a diffusers folder, and back again."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from .base import SJDPipeline
from .loading import find_family, load_pipeline, load_single_file


def convert_model(source: str | Path, target: str | Path, **options: Any) -> Path:
    """Write a model as a diffusers-layout folder of safetensors, whole or not at all.

    Args:
        source: a published file (a path or `owner/name/file.pt`), or a name, folder or hub id that
            `from_pretrained` takes.
        target: the new folder; must not exist.
        **options: of `from_single_file` (`vq_file`, `image_size`, `noise_std`, ...) or of `from_pretrained`
            (`dtype`, `vq_model`, ...), as the model's family takes them.

    Raises:
        FileExistsError: `target` exists.
        OSError, ValueError: as when loading.
    """
    target = Path(target).expanduser()
    if target.exists():
        raise FileExistsError(f"{target} exists; choose a new folder.")
    single = Path(str(source)).suffix in (".pt", ".pth", ".ckpt")
    pipe = (load_single_file if single else load_pipeline)(SJDPipeline, source, options)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        pipe.save_pretrained(temporary)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def export_published(source: str | Path, target: str | Path) -> list[Path]:
    """Write a diffusers-layout folder as the files that its authors' own code loads.

    Args:
        source: the folder.
        target: a folder for the files.

    Returns:
        The files.

    Raises:
        OSError: `source` is not such a folder.
        ValueError: its family is not published as single files.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    return find_family(source).export_published_files(source, target)
