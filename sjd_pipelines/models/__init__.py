"""Networks that no library has, and conversion of published checkpoints."""

from .llamagen import LLAMAGEN_SIZES, LlamaGenTransformer
from .published import (
    PAR_GUIDANCE,
    check_stored,
    image_size_of,
    llamagen_from_published,
    published_dtype,
    published_llamagen_weights,
    published_names,
    read_published_file,
    write_published_file,
)
from .tarflow import TarFlowTransformer2DModel
from .tiling import Tiling, render_tiled
from .vq import published_vq_weights, render_codes, render_janus_codes, vq_model_from_published

__all__ = [
    "LLAMAGEN_SIZES",
    "PAR_GUIDANCE",
    "LlamaGenTransformer",
    "TarFlowTransformer2DModel",
    "Tiling",
    "check_stored",
    "image_size_of",
    "llamagen_from_published",
    "published_llamagen_weights",
    "published_dtype",
    "published_names",
    "published_vq_weights",
    "read_published_file",
    "render_codes",
    "render_janus_codes",
    "render_tiled",
    "vq_model_from_published",
    "write_published_file",
]
