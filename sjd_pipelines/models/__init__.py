"""Networks that no library has, and conversion of published checkpoints."""

from .drafter import EagleDrafter
from .llamagen import LLAMAGEN_SIZES, LlamaGenTransformer
from .published import (
    image_size_of,
    llamagen_from_published,
    published_llamagen_weights,
    read_published_file,
    write_published_file,
)
from .reviser import DraftReviser
from .tiling import Tiling, decode_tiled
from .vq import decode_codes, published_vq_weights, vq_model_from_published

__all__ = [
    "LLAMAGEN_SIZES",
    "DraftReviser",
    "EagleDrafter",
    "LlamaGenTransformer",
    "Tiling",
    "decode_codes",
    "decode_tiled",
    "image_size_of",
    "llamagen_from_published",
    "published_llamagen_weights",
    "published_vq_weights",
    "read_published_file",
    "vq_model_from_published",
    "write_published_file",
]
