"""Models from one layout to another: published files to a diffusers folder, and back again."""

from pathlib import Path
from typing import Any

from ..disk import check_new_folder, expanded, new_folder
from .base import SJDPipeline
from .loading import find_family, load_pipeline, load_single_file
from .options import AUTO


def convert_model(source: str | Path, target: str | Path, **options: Any) -> Path:
    """Write a model as a diffusers-layout folder of safetensors, whole or not at all.

    Args:
        source: a published file (a path or `owner/name/file.pt`), or a name, folder or hub id that
            `from_pretrained` takes.
        target: the new folder; must not exist.
        **options: of `from_single_file` (`vq_file`, `image_size`, `noise_std`, ...) or of `from_pretrained`
            (`vq_model`, ...), as the model's family takes them; `dtype` is that of the file unless it is given.

    Raises:
        FileExistsError: `target` exists.
        OSError, ValueError: as when loading.
    """
    target = expanded(target)
    check_new_folder(target)
    single = Path(str(source)).suffix in (".pt", ".pth", ".ckpt")
    pipe = (load_single_file if single else load_pipeline)(SJDPipeline, source, {"dtype": AUTO} | options)
    with new_folder(target) as folder:
        pipe.save_pretrained(folder)
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
    source, target = expanded(source), expanded(target)
    if not source.is_dir():
        raise OSError(f"{source} is no folder; the way back starts from one that sjd convert wrote.")
    return find_family(source).export_published_files(source, target)
