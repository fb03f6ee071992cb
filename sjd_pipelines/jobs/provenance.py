"""What a picture remembers: everything that it takes to draw it again, as JSON in a text chunk of its PNG.

No times and no paths are among it, so that a picture that is drawn again is the same file.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundled import BUNDLED, DEFAULT
from ..disk import expanded
from ..ranges import shown
from ..version import __version__
from .rows import Row

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

KEY = "sjd_pipelines"  # of the text chunk
MODEL_KEYS = ("name", "pipeline", "dtype", "weights")
_NO_PLACE = ("/", "\\", ".", "~")  # how paths begin; a hub id does not


@dataclass(frozen=True)
class Provenance:
    """Where a picture comes from.

    Attributes:
        row: what was drawn, with all settings and the picture's own seed.
        model: `name`, `pipeline`, `dtype` and, as SHA-256, `weights`.
        version: of this package.
    """

    row: Row
    model: Mapping[str, str]
    version: str = __version__

    def to_text(self) -> str:
        """As it stands in the PNG. The id is left out: a picture does not depend on it."""
        columns = {name: value for name, value in self.row.to_json().items() if name != "id"}
        return json.dumps({"version": self.version, "model": dict(self.model), **columns})

    @classmethod
    def from_text(cls, text: str) -> "Provenance":
        """Raises `ValueError` for a text that is not as `to_text` writes it."""
        try:
            values = json.loads(text)
            version, model = values.pop("version"), values.pop("model")
            if not isinstance(version, str) or not all(isinstance(model[key], str) for key in MODEL_KEYS):
                raise ValueError("version and model must be texts")
            row = Row.of(values, 1)
            if row.picture_seed is None:
                raise ValueError("there is no picture_seed")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"there is no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
            raise ValueError(f"what it remembers is damaged, or of another version: {reason.rstrip('.')}.") from error
        return cls(row, {key: model[key] for key in MODEL_KEYS}, version)

    def check_weights(self, pipe: Any) -> None:
        """Raise `ValueError` unless a pipeline has the weights that drew the picture."""
        found = describe_model(pipe, self.model["name"])
        for key, words in (("pipeline", "pipeline"), ("dtype", "dtype"), ("weights", "weights of SHA-256")):
            if found[key] != self.model[key]:
                raise ValueError(
                    f"it was drawn by {self.model['name']} with {words} {shown(self.model[key])}, this has "
                    f"{shown(found[key])}: it would be another picture."
                )

    @property
    def source(self) -> str | None:
        """What loads the model; None where it is a folder, of which only the name is known."""
        name = self.model["name"]
        return name if name in BUNDLED or "/" in name else None


def describe_model(pipe: Any, model: str | Path | None = None) -> dict[str, str]:
    """What pictures remember of a model.

    Args:
        pipe: its pipeline.
        model: as it was loaded; of a folder the name alone is kept. None is the default bundled model.
    """
    name = DEFAULT if model is None else str(model)
    if isinstance(model, Path) or name.startswith(_NO_PLACE) or (name not in BUNDLED and expanded(name).exists()):
        name = expanded(name).resolve().name
    counts: Counter[Any] = Counter()
    for _, tensor in _weights(pipe):
        counts[tensor.dtype] += tensor.numel()
    dtype = str(counts.most_common(1)[0][0]).removeprefix("torch.")
    return {"name": name, "pipeline": type(pipe).__name__, "dtype": dtype, "weights": weights_digest(pipe)}


def weights_digest(pipe: Any) -> str:
    """SHA-256 of all weights of a pipeline as they are in memory, in hexadecimal: of names, shapes, types, numbers.

    Raises:
        ValueError: some are not in memory, but offloaded.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in _weights(pipe):
        if tensor.is_meta:
            raise ValueError(f"the weights are offloaded, {name} among them: nothing tells which they are.")
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _weights(pipe: Any) -> "Iterator[tuple[str, torch.Tensor]]":
    """All weights by name, in one order."""
    import torch

    for component, network in sorted(pipe.components.items()):
        if isinstance(network, torch.nn.Module):
            for name, tensor in sorted(network.state_dict().items()):
                yield f"{component}.{name}", tensor


def save_picture(image: "Image", path: Path, provenance: Provenance) -> None:
    """Write a picture in the format of the suffix; a PNG remembers where it comes from."""
    if path.suffix.lower() == ".png":
        path.write_bytes(png_bytes(image, provenance))
    else:
        image.save(path)


def png_bytes(image: "Image", provenance: Provenance) -> bytes:
    """A picture as PNG that remembers where it comes from."""
    from PIL.PngImagePlugin import PngInfo

    chunks, file = PngInfo(), io.BytesIO()
    chunks.add_text(KEY, provenance.to_text())
    image.save(file, format="PNG", pnginfo=chunks)
    return file.getvalue()


def read_chunks(path: Path) -> dict[str, str]:
    """The text chunks of a PNG. Raises `ValueError` for a file that is none, `OSError` where there is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.load()  # chunks may come after the pixels
            return {key: value for key, value in picture.info.items() if isinstance(value, str)}
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no PNG; other formats remember nothing.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is a damaged PNG: {error}.") from error
