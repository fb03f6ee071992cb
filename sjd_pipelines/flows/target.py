"""What the solvers cannot see: the network, its cache, its guidance rows and the order of its blocks."""

import hashlib
from dataclasses import asdict
from typing import Any

import torch

from ..models.tarflow import FlowCache, TarFlowTransformer2DModel
from .guidance import FlowGuidance

HASHED = 256  # numbers of a layer


class FlowTarget:
    """Scales and shifts of a flow's blocks for given inputs, both guidance branches in one batch.

    Args:
        model: the flow.
        labels: `[B]` int64 classes, negative for none; None for an unconditional model.
        batch_size: B.
        guidance: see `FlowGuidance`.
    """

    def __init__(
        self,
        model: TarFlowTransformer2DModel,
        labels: torch.Tensor | None,
        batch_size: int,
        guidance: FlowGuidance | None = None,
    ):
        self.model, self.guidance = model, guidance or FlowGuidance()
        self.labels, self.batch_size = labels, batch_size
        self.num_blocks, self.num_tokens = len(model.blocks), model.num_tokens
        self.branches = self.guidance.branches(model.config.num_classes > 0)
        self.weights = self.guidance.weights(self.num_tokens, model.var.to(model.state_dtype))
        self.block = self.cache = self.condition = self.sharpness = None

    @property
    def conditions(self) -> dict[str, Any]:
        """What a measured error holds for, as JSON: `weights` (a hash of the last layers), `dtype`, `guidance`."""
        digest = hashlib.sha256()
        for block in self.model.blocks:
            digest.update(str(block.proj_out.weight.detach().flatten()[:HASHED].tolist()).encode())
        return {
            "weights": digest.hexdigest()[:8],
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "guidance": asdict(self.guidance) if self.branches == 2 else None,
        }

    def twin(self) -> "FlowTarget":
        """The same flow for the same pictures, with a cache of its own for a block beside this one's."""
        return FlowTarget(self.model, self.labels, self.batch_size, self.guidance)

    def begin(self, block: int) -> None:
        """Turn to a block, with all rows."""
        config, rows = self.model.config, self.batch_size * self.branches
        self.block = block
        condition = self.model.condition(block, self.labels, self.batch_size)
        if condition is not None and self.branches == 2:
            condition = torch.cat([condition, self.model.condition(block, None, self.batch_size)])
        self.condition = condition
        if self.cache is None or self.cache.rows != rows:  # rows have left, or it is the first block
            self.cache = None  # before there is another one
            self.cache = FlowCache(
                config.layers_per_block,
                rows,
                config.hidden_size // config.attention_head_dim,
                self.num_tokens - 1,
                config.attention_head_dim,
                self.model.dtype,
                self.model.device,
            )
        if self.branches == 2 and self.guidance.temperature != 1:
            sharpness = torch.ones(rows, 1, 1, 1, dtype=self.model.dtype, device=self.model.device)
            sharpness[self.batch_size :] = 1 / self.guidance.temperature
            self.sharpness = sharpness

    def keep(self, rows: torch.Tensor) -> None:
        """Let all pictures but these `[A]` of the present ones go, until the next block."""
        if self.branches == 2:
            present = self.cache.rows // 2
            rows = torch.cat([rows, rows + present])
        self.cache.keep(rows)
        if self.condition is not None:
            self.condition = self.condition[rows]
        if self.sharpness is not None:
            self.sharpness = self.sharpness[rows]

    def affine(self, inputs: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Guided log scale and shift of tokens `start + 1` to `start + Q`, two like the inputs `[A, Q, D]`."""
        if self.branches == 2:
            inputs = torch.cat([inputs, inputs])
        log_scale, shift = self.model.affine(self.block, inputs, self.condition, start, self.cache, self.sharpness)
        if self.branches == 2:
            return self.guidance.mix(log_scale, shift, self.weights[start : start + inputs.shape[1]])
        return log_scale, shift

    def order(self, block: int, tokens: torch.Tensor) -> torch.Tensor:
        """Raster order to the order of a block, and back."""
        return self.model.order(block, tokens)
