"""The target of one run: a pipeline's transformer with its prompt prefilled, ready to be decoded."""

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ..decoding import CanvasCache, ImageTokenLayout, Query, Sampling, TargetPass, force, guide_rows
from ..decoding.query import after_prompt_end
from ..decoding.runner import Runner
from .prompts import EncodedPrompt

PROMPT_BLOCK = 64  # where passes are recorded, prompts have a multiple of so many tokens
READ_BLOCK = 16  # a pass reads a multiple of so many slots, prompt included

if TYPE_CHECKING:
    from .autoregressive import SJDAutoRegressivePipeline


class PromptedTarget:
    """Runs queries behind the prompts of one batch; see `Target`.

    Keys and values of all prompt tokens but the last are written when it is made; the last one is fed by the first
    query, whose first law is that of the first image token.

    Args:
        pipe: the model.
        prompt: as the transformer reads it, unconditional rows included where there is guidance.
        layout: of the image tokens.
        sampling: how they are sampled.
        margin: canvas positions after the image.

    Attributes:
        length: canvas positions.
        memory: what runs of this model leave to later ones.
        image_embeds: `[V + n - 1, D]`, of every image token, then of the learned ones where n tokens are made at
            once; looked up, not computed, in each pass.
        prompt_passes: forward passes that the prompt took.
    """

    def __init__(
        self,
        pipe: "SJDAutoRegressivePipeline",
        prompt: EncodedPrompt,
        layout: ImageTokenLayout,
        sampling: Sampling,
        margin: int = 0,
    ):
        self.pipe, self.layout, self.sampling = pipe, layout, sampling
        if pipe.runner is not None:
            prompt = prompt.padded(PROMPT_BLOCK)
        self.device = prompt.embeds.device
        self.batch_size = len(prompt.embeds) // (2 if sampling.guided else 1)
        self.length, self.memory = layout.num_tokens + margin, pipe.memory
        fed = layout.vocabulary_size + layout.parallel - 1
        self.image_embeds = pipe.embed_image_tokens(torch.arange(fed, device=self.device))
        self._forced = layout.forced_tokens(self.device, self.length) if layout.has_forced else None
        self._cells = None  # [L, 1], where positions are not cells
        if layout.order is not None:
            self._cells = layout.cells(self.length)[:, None].to(self.device)
        self._last_embed = prompt.embeds[:, -1:]  # [R, 1, D]
        self._last_position = prompt.position_ids[:, -1:]  # [R, 1], or [R, 1, axes]
        self._visible = prompt.visible  # [R, P]
        self._cache = CanvasCache(_whole_blocks(prompt.embeds.shape[1] + self.length))
        self.prompt_passes = self._prefill(prompt)

    @property
    def runner(self) -> Runner | None:
        """How passes are executed that are recorded, see `Compiling.runner`; None: as they are written."""
        return self.pipe.runner

    def codebook(self) -> torch.Tensor:
        """`[V, E]`, see `SJDAutoRegressivePipeline.codebook_vectors`."""
        return self.pipe.codebook_vectors()

    def run(self, query: Query) -> TargetPass:
        """One forward pass of the transformer: hidden states `[R, Q, D]` and guided logits `[B, Q, V]`."""
        embeds = self._rows(functional.embedding(query.token_ids, self.image_embeds))  # [R, Q, D]
        cells = query.positions if self._cells is None else functional.embedding(query.positions, self._cells)[..., 0]
        position_ids = self.pipe.image_position_ids(self._rows(cells), self._last_position, self.layout)
        if query.prompt_end:
            embeds = torch.cat([self._last_embed, embeds[:, 1:]], 1)
            position_ids = torch.cat([self._last_position, position_ids[:, 1:]], 1)
        prompt_visible = self._visible[:, None].expand(-1, embeds.shape[1], -1)  # [R, Q, P]
        visible = torch.cat([prompt_visible, self._rows(query.visible)], -1)
        extent = visible.shape[-1]
        mask = attention_bias(functional.pad(visible, (0, _whole_blocks(extent) - extent)), embeds.dtype)
        prompt_end = self._visible.shape[1] - 1  # a row's slot of the prompt's last token
        if query.moves is not None:
            self._cache.move(*(self._rows(slots) + prompt_end + 1 for slots in query.moves))
        slots = self._rows(after_prompt_end(query, query.canvas_slots)) + prompt_end
        self._cache.place(slots, mask.shape[-1])
        hidden = self.pipe.run_transformer(embeds, mask, position_ids, self._cache)
        return TargetPass(query, hidden, self.guided_logits(hidden))

    def guided_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final hidden states `[R, Q, D]` -> `[B, Q, V]` image logits, the target's as well as a drafter's."""
        if self.pipe.float32_logits:
            hidden = hidden.float()
        return guide_rows(self.pipe.image_logits(hidden), self.sampling.guidance_scale)

    def law(self, logits: torch.Tensor, predicts: torch.Tensor) -> torch.Tensor:
        """`[B, Q, V]` guided logits at positions `[B, Q]` -> `[B, Q, V]` float32, the law that is sampled."""
        if self._forced is not None:
            logits = force(logits, self._forced[predicts], self.layout.codebook_size)
        return self.sampling.law(logits)

    def _prefill(self, prompt: EncodedPrompt) -> int:
        """Write the keys and values of all prompt tokens but the last; returns how many passes it took."""
        rows, length, _ = prompt.embeds.shape
        if length == 1:
            return 0
        slots = torch.arange(length - 1, device=self.device).expand(rows, -1)  # [R, P - 1]
        self._cache.place(slots, length - 1)
        causal = slots[:, :, None] >= slots[:, None, :]  # [R, P - 1, P - 1]
        itself = slots[:, :, None] == slots[:, None, :]  # a padding token sees itself: no empty softmax
        mask = attention_bias(causal & prompt.visible[:, None, :-1] | itself, prompt.embeds.dtype)
        self.pipe.run_transformer(prompt.embeds[:, :-1], mask, prompt.position_ids[:, :-1], self._cache)
        return 1

    def _rows(self, values: torch.Tensor) -> torch.Tensor:
        """`[B, ...]` -> `[R, ...]`, conditional rows first, then the unconditional ones if there are any."""
        return torch.cat([values, values]) if self.sampling.guided else values


def _whole_blocks(slots: int) -> int:
    return -(-slots // READ_BLOCK) * READ_BLOCK


def attention_bias(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What attention adds to its scores: `[R, Q, L]` bool -> `[R, 1, Q, L]`, 0 where visible and -inf elsewhere.

    Made once per pass: a boolean mask would be converted again in every layer.

    Measured on a CPU with torch 2.13 (float32; milliseconds of one thread's own time in a layer of Janus-Pro-1B, 2
    rows and 640 slots of which a query sees some 400 to 465, at 1, 17, 33 and 65 queries): scaled dot product with a
    bias 1.7, 3.7, 5.7, 9.6; with a boolean mask 1.8, 3.8, 5.6, 9.6; two products and a softmax 1.9, 4.0, 6.2, 10.3;
    the order is the same on the bundled model. Flex attention, compiled: with the bias as what is added to a score
    1.1, 3.4, 5.4, 9.4; with a block mask that is made once for a run, has all blocks read and looks up what is visible
    1.2, 3.4, 5.7, 9.8; with one of the pass, which leaves out the last of five blocks, 1.0, 3.0, 4.7, 8.1, and 3.7 in
    each pass to make it. None is further than 1e-6 from the first. It is not taken: uncompiled, as passes are unless
    somebody asks for more, it takes 19 at 33 queries; and in a recorded pass it is one operator, which `torch.compile`
    does not take in again. On CUDA it was not measured. Where keys and values have fewer heads than queries (Emu3: 8
    and 32), transformers repeats them in each layer; at 1, 17, 33 and 65 queries, on a busy core, that takes 18.3,
    14.4, 19.0 and 28.6, its kernel for grouped heads 2.2, 6.8, 11.3 and 20.1, and `grouped_attention` 1.4, 6.5, 11.2
    and 20.1.
    """
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)[:, None]
