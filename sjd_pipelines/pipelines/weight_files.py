"""Whether the weight files of a folder are all there, told from their headers and indices."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..disk import read_object

INDEX = ".index.json"  # ends the name of the file that says which weight is in which part


def check_weight_files(folder: Path) -> None:
    """Look at every weight file of a folder and of those inside it; no weight is read.

    Raises:
        OSError: one is truncated or foreign, or a part is missing that an index names.
        ValueError: an index is none.
    """
    for index in folder.rglob(f"*.safetensors{INDEX}"):
        if not index.is_file() or index.with_name(index.name.removesuffix(INDEX)).is_file():
            continue  # what is whole is loaded first
        parts = read_object(index).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
            raise ValueError(f"{index} has no weight_map, which says in which file each weight is; download it again.")
        missing = sorted({part for part in parts.values() if not (index.parent / part).is_file()})
        if missing:
            raise OSError(f"{index.parent} lacks {', '.join(missing)}, which {index.name} names; download it again.")
    for file in folder.rglob("*.safetensors"):
        if file.is_file():
            _check_header(file)


def _check_header(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise OSError(f"{file} is not a complete safetensors file ({error}); download it again.") from error
