"""The pipeline that turns prompts into pictures: its life cycle and the decode loop, shared by every model family."""

import secrets
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from packaging.version import Version

from ..decoding import (
    CanvasCache,
    DecodingStatistics,
    ImageTokenLayout,
    PositionNoise,
    Query,
    force,
    guide,
    probabilities,
)
from ..schedulers import DecodingScheduler
from .inputs import check_call, check_generators
from .loading import load_pipeline, load_single_file
from .output import SJDPipelineOutput


@dataclass
class EncodedPrompt:
    """Prompt rows as the transformer reads them: R = B without guidance, 2B with it (conditional rows first).

    Attributes:
        embeds: `[R, P, D]`; the output behind the last one predicts the first image token.
        visible: `[R, P]` bool, False for padding.
        position_ids: `[R, P]` int64; image token p stands p + 1 behind the last one. None counts the visible tokens
            of each row from 0.
    """

    embeds: torch.Tensor
    visible: torch.Tensor
    position_ids: torch.Tensor | None = None

    def __post_init__(self):
        if self.position_ids is None:
            self.position_ids = (self.visible.long().cumsum(-1) - 1).clamp(min=0)


@dataclass
class PromptMemory:
    """The prefilled prompt and what a window needs of it."""

    cache: CanvasCache
    last_embed: torch.Tensor  # [R, 1, D]: last prompt token, fed as position -1
    visible: torch.Tensor  # [R, P] bool
    last_position: torch.Tensor  # [R, 1] int64
    guidance_scale: float

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1


class SJDAutoRegressivePipeline(DiffusionPipeline):
    """Text to image with a discrete autoregressive model and a swappable decoding scheduler.

    `SJDAutoRegressivePipeline.from_pretrained(...)` finds the model family and returns its subclass. A family defines
    `encode_prompt`, `image_layout`, `embed_image_tokens`, `run_transformer`, `image_logits`,
    `codebook_vectors`, `decode_tokens` and `sampling_defaults`; everything else is here.
    """

    model_cpu_offload_seq = "model"
    _callback_tensor_inputs = ["canvas", "committed", "acceptance_map"]

    scheduler: DecodingScheduler

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path | None = None, **kwargs: Any):
        """Load a model; its family is read from its files.

        Args:
            pretrained_model_name_or_path: a folder or a hub id, in diffusers layout (`model_index.json`) or
                transformers layout (`config.json`). None loads the bundled checkpoint.
            **kwargs: `scheduler`, `dtype` (default float32), `device_map`, `quantization_config`, and for hub ids
                `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            OSError: nothing loadable is there, or a weight file is damaged.
            ValueError: the model is of a family, or the weights are of a shape, that this class does not know.
        """
        return load_pipeline(cls, pretrained_model_name_or_path, kwargs)

    @classmethod
    def from_single_file(cls, file: str | Path, **kwargs: Any):
        """Load a published LlamaGen file (`.pt`), the only family whose models come as single files.

        Args:
            file: a path, or `owner/name/file.pt` on the hub.
            **kwargs: as in `SJDLlamaGenPipeline.load_published_files`.

        Raises:
            OSError: the file is not there or cannot be read.
            ValueError: its weights are not a LlamaGen's.
        """
        return load_single_file(cls, file, kwargs)

    @classmethod
    def load_diffusers_folder(cls, folder: Path, **kwargs: Any):
        """Load what `save_pretrained` wrote."""
        if "dtype" in kwargs and Version(diffusers.__version__) < Version("0.40"):  # ignored `dtype` in silence
            kwargs["torch_dtype"] = kwargs.pop("dtype")
        return super().from_pretrained(str(folder), **kwargs)

    @classmethod
    def settings_of_folder(cls, folder: Path) -> dict[str, Any]:
        """Settings of the constructor that a transformers folder tells by its names and configuration."""
        return {}

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def interrupt(self) -> bool:
        """Set to True, for instance by a callback, to stop the run after the current pass."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict | None] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> SJDPipelineOutput | tuple:
        """Draw pictures.

        Args:
            prompt: one prompt or several.
            negative_prompt: takes the place of the model's own unconditional branch; one for all or one per prompt.
            height: pixels; None is the size the model was trained for.
            width: pixels; None is the size the model was trained for.
            guidance_scale: strength of classifier-free guidance; at 1 or below the unconditional rows are not run.
                None is the checkpoint's default, as for the next three.
            temperature: divides the logits; 0 is greedy.
            top_k: sample among the k most likely tokens; 0 is all.
            top_p: sample among the most likely tokens that hold this much probability; 1 is all.
            num_images_per_prompt: pictures of each prompt.
            generator: one, or one per picture. Each picture takes a single seed from it; without a generator the
                seeds are fresh. `statistics.seeds` has them.
            output_type: `pil`, `np`, `pt`, or `latent` for the tokens.
            return_dict: False returns a tuple `(images, tokens, statistics)`.
            callback_on_step_end: called as `callback(pipe, pass_index, committed_tokens, tensors)` after each pass.
                It may set `pipe.interrupt = True`; what it returns is ignored.
            callback_on_step_end_tensor_inputs: which of `canvas` (`[B, N]` tokens, drafts included), `committed`
                (`[B]` counts) and `acceptance_map` (`[B, N]`, the pass that committed each token, -1 for none) it
                receives.

        Returns:
            `SJDPipelineOutput`, or a tuple.

        Raises:
            ValueError: bad input, before any work starts.
        """
        prompts = self.prepare_prompts(prompt)
        tensor_inputs = self._callback_tensor_inputs
        if callback_on_step_end_tensor_inputs is not None:
            tensor_inputs = callback_on_step_end_tensor_inputs
        defaults = self.sampling_defaults()
        guidance_scale = defaults["guidance_scale"] if guidance_scale is None else guidance_scale
        temperature = defaults["temperature"] if temperature is None else temperature
        top_k = defaults["top_k"] if top_k is None else top_k
        top_p = defaults["top_p"] if top_p is None else top_p
        check_call(
            prompts, negative_prompt, guidance_scale, temperature, top_k, top_p, num_images_per_prompt, output_type
        )
        check_generators(generator, len(prompts) * num_images_per_prompt)
        unknown = set(tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            known = ", ".join(self._callback_tensor_inputs)
            raise ValueError(f"callback_on_step_end_tensor_inputs: {sorted(unknown)} not in {known}.")
        layout = self.image_layout(height, width)

        self._guidance_scale = guidance_scale
        self._interrupt = False
        device = self._execution_device
        batch_size = len(prompts) * num_images_per_prompt
        seeds = self.prepare_seeds(generator, batch_size)
        negatives = negative_prompt
        if isinstance(negative_prompt, str):
            negatives = [negative_prompt] * len(prompts)

        clock = [time.perf_counter()]
        encoded = self.encode_prompt(prompts, negatives, guidance_scale > 1, num_images_per_prompt, layout)
        memory = self.prefill(encoded, layout, guidance_scale)
        clock.append(time.perf_counter())

        if self.scheduler.needs_codebook:
            self.scheduler.prepare_codebook(self.codebook_vectors())
        state = self.scheduler.start(layout, batch_size, device)
        noise = PositionNoise(seeds, device, state.canvas.shape[1])
        with self.progress_bar(total=batch_size * layout.num_tokens) as bar:
            while not state.finished and not self.interrupt:
                query = self.scheduler.plan(state, noise)
                logits = self.forward(query, memory)
                if state.forced is not None:
                    logits = force(logits, state.forced[query.positions + 1], layout.codebook_size)
                law = probabilities(logits, temperature, top_k, top_p)
                state = self.scheduler.step(law, query, state, noise)
                state.synchronize()
                bar.update(sum(state.advances))
                if callback_on_step_end is not None:
                    tensors = {
                        "canvas": state.tokens,
                        "committed": state.committed,
                        "acceptance_map": state.acceptance_map,
                    }
                    chosen = {name: tensors[name] for name in tensor_inputs}
                    callback_on_step_end(self, state.passes - 1, sum(state.counts), chosen)
        clock.append(time.perf_counter())

        tokens = layout.image_tokens(state.tokens)
        images = tokens
        if output_type != "latent":
            pixels = self.decode_tokens(tokens, layout)
            images = VaeImageProcessor().postprocess(pixels.float(), output_type=output_type)
        clock.append(time.perf_counter())
        self.maybe_free_model_hooks()

        seconds = dict(zip(("encode", "decode", "pixels"), (end - start for start, end in pairwise(clock))))
        statistics = DecodingStatistics.from_state(
            state, type(self.scheduler).__name__, self.scheduler.label, seeds, seconds
        )
        if not return_dict:
            return images, tokens, statistics
        return SJDPipelineOutput(images=images, tokens=tokens, statistics=statistics)

    def prepare_prompts(self, prompt: str | list[str]) -> list[str]:
        """One text per row of the batch."""
        return [prompt] if isinstance(prompt, str) else prompt

    def prepare_seeds(self, generator: torch.Generator | list[torch.Generator] | None, batch_size: int) -> list[int]:
        """One 63-bit seed per picture. The global random state is neither read nor moved."""
        if generator is None:
            return [secrets.randbits(63) for _ in range(batch_size)]
        generators = generator if isinstance(generator, list) else [generator] * batch_size
        return [
            torch.randint(2**63 - 1, (), dtype=torch.int64, generator=source, device=source.device).item()
            for source in generators
        ]

    def prefill(self, prompt: EncodedPrompt, layout: ImageTokenLayout, guidance_scale: float) -> PromptMemory:
        """Write the keys and values of all prompt tokens but the last, which is the first query's first slot."""
        rows, length, _ = prompt.embeds.shape
        # Room for the whole image and for a query that reaches past its end.
        cache = CanvasCache(length + layout.num_tokens + self.scheduler.margin(layout))
        position_ids = prompt.position_ids
        if length > 1:
            slots = torch.arange(length - 1, device=prompt.embeds.device).expand(rows, -1)  # [R, P - 1]
            cache.place(slots, length - 1)
            causal = slots[:, :, None] >= slots[:, None, :]  # [R, P - 1, P - 1]
            itself = slots[:, :, None] == slots[:, None, :]  # a padding token sees itself: no empty softmax
            mask = causal & prompt.visible[:, None, :-1] | itself
            self.run_transformer(prompt.embeds[:, :-1], mask[:, None], position_ids[:, :-1], cache)
        return PromptMemory(cache, prompt.embeds[:, -1:], prompt.visible, position_ids[:, -1:], guidance_scale)

    def forward(self, query: Query, memory: PromptMemory) -> torch.Tensor:
        """Run the transformer on one query: `[B, Q]` tokens -> `[B, Q, V]` guided image logits."""
        prompt_length = memory.visible.shape[1]
        copies = 2 if memory.guided else 1
        embeds = self.embed_image_tokens(query.token_ids).repeat(copies, 1, 1)  # [R, Q, D]
        positions = query.positions.repeat(copies, 1)  # [R, Q]
        embeds = torch.where(positions[..., None] < 0, memory.last_embed, embeds)
        visible = query.visible.repeat(copies, 1, 1)  # [R, Q, S]
        prompt_visible = memory.visible[:, None].expand(-1, visible.shape[1], -1)  # [R, Q, P]
        mask = torch.cat([prompt_visible, visible], -1)[:, None]  # [R, 1, Q, P + S]
        if query.moves is not None:
            memory.cache.move(*(slots.repeat(copies, 1) + prompt_length for slots in query.moves))
        slots = positions if query.slots is None else query.slots.repeat(copies, 1)
        memory.cache.place(slots + prompt_length, mask.shape[-1])
        hidden = self.run_transformer(embeds, mask, memory.last_position + 1 + positions, memory.cache)
        logits = self.image_logits(hidden)
        if memory.guided:
            conditional, unconditional = logits.float().chunk(2)
            logits = guide(conditional, unconditional, memory.guidance_scale)
        return logits

    def onload(self, *components: torch.nn.Module) -> None:
        """Bring offloaded components to the execution device; hooks fire on `forward` only, which is not called."""
        for component in components:
            hook = getattr(component, "_hf_hook", None)
            if hook is not None:
                hook.pre_forward(component)

    @abstractmethod
    def sampling_defaults(self) -> dict[str, Any]:
        """`guidance_scale`, `temperature`, `top_k` and `top_p` of this checkpoint."""

    @abstractmethod
    def image_layout(self, height: int | None, width: int | None) -> ImageTokenLayout:
        """The token grid of a picture of this size. Raises `ValueError` for a size the model cannot draw."""

    @abstractmethod
    def image_sizes(self) -> list[tuple[int, int]]:
        """Heights and widths in pixels that the model was trained for, its default first."""

    @abstractmethod
    def encode_prompt(
        self,
        prompt: list[str],
        negative_prompt: list[str] | None,
        guided: bool,
        num_images_per_prompt: int,
        layout: ImageTokenLayout | None = None,
    ) -> EncodedPrompt:
        """Text to transformer inputs, guidance rows included; some state the size of `layout` (None: the default)."""

    @abstractmethod
    def embed_image_tokens(self, token_ids: torch.Tensor) -> torch.Tensor:
        """`[B, Q]` ids -> `[B, Q, D]`."""

    @abstractmethod
    def run_transformer(
        self, embeds: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor, cache: CanvasCache
    ) -> torch.Tensor:
        """`[R, Q, D]`, `[R, 1, Q, L]` bool, `[R, Q]` -> `[R, Q, D]` final hidden states."""

    @abstractmethod
    def image_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[R, Q, D]` -> `[R, Q, V]` over the image codebook (and structural ids) only."""

    @abstractmethod
    def codebook_vectors(self) -> torch.Tensor:
        """`[V, E]`: the codebook as `decode_tokens` looks it up, so that near vectors are alike in the picture."""

    @abstractmethod
    def decode_tokens(self, tokens: torch.Tensor, layout: ImageTokenLayout) -> torch.Tensor:
        """`[B, rows * columns]` codebook ids -> `[B, 3, H, W]` in [-1, 1]."""


def repeat_images(rows: torch.Tensor, prompts: int, images: int) -> torch.Tensor:
    """`[C * prompts, ...]` -> `[C * prompts * images, ...]`, each prompt's pictures side by side."""
    return rows.unflatten(0, (-1, prompts)).repeat_interleave(images, 1).flatten(0, 1)
