"""What every worker imports, imported once by the server that they are forked from."""

import diffusers
import torch
import transformers

from ..pipelines import autoregressive, loading

__all__ = ["autoregressive", "diffusers", "loading", "torch", "transformers"]
