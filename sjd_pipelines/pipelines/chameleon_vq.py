"""Where Chameleon's VQGAN decoder comes from: transformers has no place for it, so it travels in several ways."""

from pathlib import Path

from diffusers import VQModel
from safetensors import safe_open

from ..models import read_published_file, vq_model_from_published

PREFIX = "model.vqmodel."  # of Anole's conversion, which keeps the decoder beside the language model


def load_vq_model(folder: Path, source: VQModel | str | Path | None) -> VQModel:
    """The decoder: `source` itself, the file or folder it names, or what lies in the model's `folder`.

    Raises:
        OSError: `source` does not exist or cannot be read.
        ValueError: no decoder is found.
    """
    if isinstance(source, VQModel):
        return source
    if source is not None:
        path = Path(source).expanduser()
        if path.is_dir():
            return VQModel.from_pretrained(path)
        if path.is_file():
            return vq_model_from_published(read_published_file(path))
        raise OSError(f"{path} is neither a VQGAN checkpoint nor a folder of one.")
    weights = _weights_with_prefix(folder)
    if any(name.startswith("decoder.") for name in weights):
        return vq_model_from_published(weights).float()
    for file in (*sorted(folder.rglob("vqgan.ckpt")),):
        return vq_model_from_published(read_published_file(file))
    raise ValueError(
        f"{folder} has no VQGAN decoder. Pass vq_model=, the path of Meta's vqgan.ckpt "
        "(in the Chameleon download, or original_tokenizers of Alpha-VLLM/Chameleon_7B_mGPT)."
    )


def _weights_with_prefix(folder: Path) -> dict:
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(PREFIX)]  # noqa: SIM118
            weights |= {name.removeprefix(PREFIX): tensors.get_tensor(name) for name in names}
    return weights
