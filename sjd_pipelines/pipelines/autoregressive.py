"""The pipeline that turns prompts into pictures by a discrete autoregressive model, shared by every family."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import logging

from ..companions import COMPANIONS, DraftReviser
from ..decoding import (
    CanvasCache,
    Companion,
    DecodingState,
    DecodingStatistics,
    ImageTokenLayout,
    Memory,
    PositionNoise,
    Sampling,
    decode,
    guide_rows,
)
from ..models import Tiling, render_tiled
from ..schedulers import DecodingScheduler, RevisedJacobiScheduler, SeededJacobiScheduler
from . import inputs
from .base import SJDPipeline, drawing
from .compiling import Compiling
from .finite import explained
from .loading import load_pipeline, load_single_file
from .output import SJDPipelineOutput
from .prompts import EncodedPrompt
from .room import check_room
from .runs import Run, running
from .target import PromptedTarget
from .text_side import TOKENIZING, TextSide

logger = logging.get_logger(__name__)
# What a callback may be given: its name -> where the state has it.
CALLBACK_TENSORS = {"canvas": "tokens", "committed": "committed", "acceptance_map": "acceptance_map"}


class SJDAutoRegressivePipeline(Compiling, TextSide, SJDPipeline):
    """Text to image with a discrete autoregressive model and a swappable decoding scheduler.

    `SJDAutoRegressivePipeline.from_pretrained(...)` finds the model family and returns its subclass. A family defines
    `embed_prompt`, `prompt_length` (or `check_prompts`), `image_layout`, `image_sizes`, `embed_image_tokens`,
    `run_transformer`, `image_logits`, `codebook_vectors`, `render_grid` and `sampling_defaults`; everything else is
    here.
    """

    model_cpu_offload_seq = "model"
    _optional_components = [*COMPANIONS]
    _callback_tensor_inputs = [*CALLBACK_TENSORS]

    scheduler_type = DecodingScheduler
    scheduler_words = "decoding schedulers"
    works_by = "An autoregressive model decodes tokens"
    scheduler: DecodingScheduler
    _tiling: Tiling | None = None

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path | None = None, **kwargs: Any):
        """Load a model; its family is read from its files.

        Args:
            pretrained_model_name_or_path: the name of a bundled model; or a folder or a hub id (`owner/name`), in
                diffusers layout (`model_index.json`), transformers layout (`config.json`) or with a LoRA adapter
                (`adapter_config.json`), merged into the base that it names. A bundled model comes before a folder of
                the same name, which `./name` or a `Path` means; a folder before the hub. None is `emoji-janus`.
            **kwargs: `scheduler` (default: the saved one, else that of `default_scheduler`), `dtype` (default
                float32), `device_map`, `quantization_config`, what else the family's loader takes, and for hub ids
                `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            OSError: nothing loadable is there, or a weight file is damaged.
            ValueError: the model is of a family, or the weights are of a shape, that this class does not know; or an
                option is of another family.
        """
        return load_pipeline(cls, pretrained_model_name_or_path, kwargs)

    @classmethod
    def from_single_file(cls, file: str | Path, **kwargs: Any):
        """Load a model that is published as a single file (`.pt`); of these families, LlamaGen's are.

        Args:
            file: a path, or `owner/name/file.pt` on the hub.
            **kwargs: as in `SJDLlamaGenPipeline.load_published_files`.

        Raises:
            OSError: the file is not there or cannot be read.
            ValueError: its weights are not a LlamaGen's.
        """
        return load_single_file(cls, file, kwargs)

    @classmethod
    def default_scheduler(cls, reviser: DraftReviser | None = None) -> DecodingScheduler:
        """The scheduler of a model that was saved without one: seeded Jacobi, revised if it comes with a reviser."""
        return SeededJacobiScheduler() if reviser is None else RevisedJacobiScheduler()

    @classmethod
    def settings_of_folder(cls, folder: Path) -> dict[str, Any]:
        """Settings of the constructor that a transformers folder tells by its names and configuration."""
        return {}

    @drawing
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
        seeds: int | Iterable[int] | None = None,
        scheduler: DecodingScheduler | str | None = None,
    ) -> SJDPipelineOutput | tuple:
        """Draw pictures.

        Args:
            prompt: one prompt or several. Words that the model does not know, and what it cuts off, are logged.
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
                seeds are fresh. `statistics.seeds` has them, and `seeds` takes them.
            output_type: `pil`, `np`, `pt`, or `latent` for the tokens.
            return_dict: False returns a tuple `(images, tokens, statistics)`.
            callback_on_step_end: called as `callback(pipe, pass_index, committed_tokens, tensors)` after each pass.
                It may set `pipe.interrupt = True`, which stops this run alone; what it returns is ignored.
            callback_on_step_end_tensor_inputs: which of `canvas` (`[B, N]` tokens, drafts included), `committed`
                (`[B]` counts) and `acceptance_map` (`[B, N]`, the pass that committed each token, -1 for none) it
                receives, as copies.
            seeds: in place of a generator, the seed of each picture itself, as `statistics.seeds` records it: draws
                these pictures again, alone or in any batch. A list with one for each, or an integer for one picture.
            scheduler: decodes this call in the place of `pipe.scheduler`; its name (`sjd`) is one with its defaults.

        Returns:
            `SJDPipelineOutput`, or a tuple.

        Raises:
            ValueError: bad input, before any work starts.
            NotFiniteError: the model gave numbers that are not finite.
        """
        scheduler = self.read_scheduler(self.scheduler if scheduler is None else scheduler)
        prompts = self.prepare_prompts(prompt)
        sampling = self.prepare_sampling(guidance_scale, temperature, top_k, top_p)
        num_images_per_prompt = inputs.check_call(prompts, num_images_per_prompt, output_type)
        batch_size = len(prompts) * num_images_per_prompt
        generator = inputs.check_generators(generator, batch_size)
        seeds = inputs.check_seeds(seeds, generator, batch_size)
        tensor_inputs = inputs.check_callback(
            callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs
        )
        layout = self.image_layout(*inputs.check_size(height, width))
        negatives = inputs.check_negatives(negative_prompt, len(prompts))
        used_negatives = negatives if sampling.guided else None
        with TOKENIZING:
            self.check_prompts(prompts, used_negatives, layout)
            remarks = self.prompt_remarks(prompts + (used_negatives or []))
        self.check_scheduler(scheduler, layout)
        for remark in remarks:
            logger.warning(remark)

        with running(self, sampling.guidance_scale) as run:
            needed = batch_size * self.picture_bytes(layout, scheduler, sampling.guided)
            check_room(needed, self._execution_device, batch_size)
            seeds = self.prepare_seeds(generator, batch_size) if seeds is None else seeds
            clock = [time.perf_counter()]
            encoded = self.encode_prompt(prompts, negatives, sampling.guided, num_images_per_prompt, layout)
            target = self.prepare_target(encoded, layout, sampling, scheduler.margin(layout))
            clock.append(time.perf_counter())
            state = self.decode(target, scheduler, seeds, run, callback_on_step_end, tensor_inputs)
            clock.append(time.perf_counter())
            tokens = layout.image_tokens(state.tokens)
            images = tokens if output_type == "latent" else self.postprocess(tokens, layout, output_type)
            clock.append(time.perf_counter())
            self.maybe_free_model_hooks()

        seconds = dict(zip(("encode", "decode", "pixels"), (end - start for start, end in pairwise(clock))))
        label = scheduler.label_at(sampling.temperature)
        statistics = DecodingStatistics.from_state(
            state, type(scheduler).__name__, label, seeds, seconds, target.prompt_passes
        )
        if not return_dict:
            return images, tokens, statistics
        return SJDPipelineOutput(images=images, tokens=tokens, statistics=statistics)

    def decode(
        self,
        target: PromptedTarget,
        scheduler: DecodingScheduler,
        seeds: list[int],
        run: Run,
        callback: Callable[..., Any] | None = None,
        tensor_inputs: Sequence[str] = (),
    ) -> DecodingState:
        """Decode the tokens of one batch, with progress bar, callback and interruption; see `decoding.decode`."""
        layout = target.layout
        companions = self.prepare_companions(scheduler, target)
        noise = PositionNoise(seeds, target.device, target.length)
        with self.progress_bar(total=target.batch_size * layout.num_tokens) as bar, explained(self.components):

            def on_pass(state: DecodingState) -> bool:
                bar.update(sum(state.advances))
                if callback is not None:
                    # Copies: what a callback does to them is its own affair.
                    tensors = {name: getattr(state, CALLBACK_TENSORS[name]).clone() for name in tensor_inputs}
                    callback(self, state.passes - 1, sum(state.counts), tensors)
                return run.interrupted

            return decode(target, scheduler, noise, companions, on_pass)

    def postprocess(self, tokens: torch.Tensor, layout: ImageTokenLayout, output_type: str):
        """`[B, rows * columns]` codebook ids -> pictures as `output_type` says."""
        return VaeImageProcessor().postprocess(self.decode_tokens(tokens, layout).float(), output_type=output_type)

    def enable_vae_tiling(self, tile: int = 32, overlap: int = 8) -> None:
        """Decode a picture of more than `tile` x `tile` tokens in overlapping tiles, with the memory of one tile.

        For pictures whose pixels do not fit beside the model: decoders look at the whole of what they decode, so
        that a tiled picture differs a little in tone from one decoded at once.

        Args:
            tile: tokens per side.
            overlap: tokens that neighbouring tiles share.

        Raises:
            ValueError: a tile of less than two tokens, or an overlap that is not between 1 and half a tile.
        """
        self._tiling = Tiling(tile, overlap)

    def disable_vae_tiling(self) -> None:
        """Decode every picture at once again."""
        self._tiling = None

    def prepare_sampling(
        self,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Sampling:
        """What is given, and the checkpoint's defaults for the rest; raises `ValueError` for what is out of range."""
        given = {"guidance_scale": guidance_scale, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        given = {name: value for name, value in given.items() if value is not None}
        return Sampling(**inputs.check_sampling(**self.sampling_defaults() | given))

    def prepare_target(
        self, prompt: EncodedPrompt, layout: ImageTokenLayout, sampling: Sampling, margin: int = 0
    ) -> PromptedTarget:
        """The model with the prompts of one batch behind it, ready to be decoded.

        Args:
            prompt: as `encode_prompt` returns it.
            layout: of the image tokens.
            sampling: how they are sampled; says whether there are unconditional rows.
            margin: canvas positions after the image, see `DecodingScheduler.margin`.
        """
        return PromptedTarget(self, prompt, layout, sampling, margin)

    def prepare_companions(self, scheduler: DecodingScheduler, target: PromptedTarget) -> dict[str, Companion]:
        """The networks that a scheduler needs beside the target, at work on its batch."""
        return {name: getattr(self, name).running(target) for name in scheduler.companions}

    def guided_logits(self, hidden: torch.Tensor, guidance_scale: float) -> torch.Tensor:
        """Final hidden states `[R, Q, D]` -> `[B, Q, V]` image logits; without guidance R is B, else 2 B."""
        return guide_rows(self.image_logits(hidden), guidance_scale)

    def companions(self) -> list[str]:
        """Names of the networks there are beside the target."""
        return [name for name in COMPANIONS if getattr(self, name) is not None]

    def check_scheduler(self, scheduler: DecodingScheduler, layout: ImageTokenLayout | None = None) -> None:
        """Raise `ValueError` with the reason if a scheduler can't decode this model."""
        self.read_scheduler(scheduler).check_target(
            self.image_layout(None, None) if layout is None else layout, self.companions()
        )

    def image_position_ids(
        self, cells: torch.Tensor, last_position: torch.Tensor, layout: ImageTokenLayout
    ) -> torch.Tensor:
        """What `run_transformer` takes as the positions of image tokens.

        Args:
            cells: `[R, Q]` int64, where the tokens stand.
            last_position: `[R, 1]` or `[R, 1, axes]`, the position of each row's last prompt token.
            layout: of the cells.

        Returns:
            `[R, Q]` or `[R, Q, axes]` int64. By default cells are counted on from the prompt.
        """
        return last_position + 1 + cells

    @abstractmethod
    def sampling_defaults(self) -> dict[str, Any]:
        """`guidance_scale`, `temperature`, `top_k` and `top_p` of this checkpoint."""

    @abstractmethod
    def image_layout(self, height: int | None, width: int | None) -> ImageTokenLayout:
        """The token grid of a picture of this size. Raises `ValueError` for a size the model cannot draw."""

    @abstractmethod
    def image_sizes(self) -> list[tuple[int, int]]:
        """Heights and widths in pixels that the model was trained for, its default first."""

    def canvas_numbers(self) -> int:
        """Numbers that the canvas keeps of one token: keys and values of every layer."""
        config = self.model.config.get_text_config()
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * config.num_key_value_heads * head_size

    def picture_bytes(self, layout: ImageTokenLayout, scheduler: DecodingScheduler, guided: bool) -> int:
        """Bytes that a run takes for one picture at least: keys and values, the prompt's left out, and kept laws."""
        slots = layout.num_tokens + scheduler.margin(layout)
        canvas = (2 if guided else 1) * slots * self.canvas_numbers() * self.dtype.itemsize
        return canvas + scheduler.law_slots(layout) * layout.vocabulary_size * torch.float32.itemsize

    def encode_prompt(
        self,
        prompt: list[str],
        negative_prompt: list[str] | None,
        guided: bool,
        num_images_per_prompt: int,
        layout: ImageTokenLayout | None = None,
    ) -> EncodedPrompt:
        """Text to transformer inputs, guidance rows included.

        Args:
            prompt: P texts.
            negative_prompt: P texts for the guidance rows; None is the family's own unconditional branch.
            guided: whether there are guidance rows.
            num_images_per_prompt: pictures of each prompt, which stand side by side.
            layout: some families state the picture's size in the prompt; None is the default size.
        """
        layout = self.image_layout(None, None) if layout is None else layout
        with TOKENIZING:
            encoded = self.embed_prompt(prompt, negative_prompt, guided, layout)
        return encoded.repeat_images(len(prompt), num_images_per_prompt)

    @abstractmethod
    def embed_prompt(
        self, prompt: list[str], negative_prompt: list[str] | None, guided: bool, layout: ImageTokenLayout
    ) -> EncodedPrompt:
        """As `encode_prompt`, one row per prompt and one per guidance prompt after them."""

    @abstractmethod
    def embed_image_tokens(self, token_ids: torch.Tensor) -> torch.Tensor:
        """`[B, Q]` ids -> `[B, Q, D]`."""

    @abstractmethod
    def run_transformer(
        self, embeds: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor, cache: CanvasCache
    ) -> torch.Tensor:
        """`[R, Q, D]`, `[R, 1, Q, L]` bias, `[R, Q]` -> `[R, Q, D]` final hidden states."""

    @abstractmethod
    def image_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[R, Q, D]` -> `[R, Q, V]` over the image codebook (and structural ids) only."""

    @abstractmethod
    def codebook_vectors(self) -> torch.Tensor:
        """`[V, E]`: the codebook as `decode_tokens` looks it up, so that near vectors are alike in the picture."""

    def decode_tokens(self, tokens: torch.Tensor, layout: ImageTokenLayout) -> torch.Tensor:
        """`[B, rows * columns]` codebook ids -> `[B, 3, H, W]` in about [-1, 1].

        One picture at a time: the activations of one large picture, or of one tile, have to fit into memory.
        """
        grids = tokens.unflatten(1, (layout.rows, layout.columns)).split(1)  # each [1, rows, columns]
        if self._tiling is None:
            return torch.cat([self.render_grid(grid) for grid in grids])
        return torch.cat([render_tiled(self.render_grid, grid, self._tiling) for grid in grids])

    @abstractmethod
    def render_grid(self, grid: torch.Tensor) -> torch.Tensor:
        """`[B, r, c]` codebook ids, a picture or a tile of one -> `[B, 3, H, W]` in about [-1, 1]."""
