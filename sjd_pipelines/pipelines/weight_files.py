"""Whether the weight files of a folder are all there, told from their headers and indices."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..disk import read_object
from ..models import check_stored

# A file's name of a number format -> torch's.
FORMATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_FORMATS_BESIDE = {"I64": "int64", "I32": "int32", "BOOL": "bool"}
INDEX = ".index.json"  # ends the name of the file that says which weight is in which part


def check_weight_files(folder: Path) -> None:
    """Look at every weight file of a folder and of those inside it; no weight is read.

    Raises:
        OSError: one is truncated or foreign, or a part is missing that an index names.
        ValueError: an index is none, or weights are stored as no plain numbers of floating point and no configuration
            says how they were quantised.
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


def is_quantized(folder: Path) -> bool:
    """Whether the configuration in a folder says that its weights are quantised: names and formats are a library's."""
    config = folder / "config.json"
    return config.is_file() and read_object(config).get("quantization_config") is not None


def _check_header(file: Path) -> None:
    quantized = is_quantized(file.parent)
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in () if quantized else tensors.keys():
                stored = tensors.get_slice(name).get_dtype()
                check_stored(file, name, (FORMATS | _FORMATS_BESIDE).get(stored, stored))
    except SafetensorError as error:
        raise OSError(f"{file} is not a complete safetensors file ({error}); download it again.") from error
