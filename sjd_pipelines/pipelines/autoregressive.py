"""The pipeline that turns prompts into pictures: its life cycle and the decode loop, shared by every model family."""

import secrets
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import logging
from packaging.version import Version
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

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
from ..models import DraftReviser, Tiling, decode_tiled
from ..schedulers import DecodingScheduler, RevisedJacobiScheduler, SeededJacobiScheduler
from ..schedulers.adaptive_window import pass_clock
from .drafting import RunningDrafter
from .inputs import check_call, check_generators, check_seeds, check_text_only
from .loading import load_pipeline, load_single_file
from .output import SJDPipelineOutput
from .prompts import EncodedPrompt, PromptMemory, attention_bias
from .revising import RunningReviser
from .words import check_length, unknown_remarks

logger = logging.get_logger(__name__)


class SJDAutoRegressivePipeline(DiffusionPipeline):
    """Text to image with a discrete autoregressive model and a swappable decoding scheduler.

    `SJDAutoRegressivePipeline.from_pretrained(...)` finds the model family and returns its subclass. A family defines
    `embed_prompt`, `prompt_length` (or `check_prompts`), `image_layout`, `image_sizes`, `embed_image_tokens`,
    `run_transformer`, `image_logits`, `codebook_vectors`, `decode_grid` and `sampling_defaults`; everything else is
    here.
    """

    model_cpu_offload_seq = "model"
    _optional_components = ["drafter", "reviser"]
    _callback_tensor_inputs = ["canvas", "committed", "acceptance_map"]

    scheduler: DecodingScheduler
    _tiling: Tiling | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path | None = None, **kwargs: Any):
        """Load a model; its family is read from its files.

        Args:
            pretrained_model_name_or_path: the name of a bundled model; or a folder or a hub id (`owner/name`), in
                diffusers layout (`model_index.json`) or transformers layout (`config.json`). A bundled model comes
                before a folder of the same name, which `./name` or a `Path` means; a folder comes before the hub.
                None is the bundled `emoji-janus`.
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
    def load_diffusers_folder(cls, folder: Path, **kwargs: Any):
        """Load what `save_pretrained` wrote."""
        if "dtype" in kwargs and Version(diffusers.__version__) < Version("0.40"):  # ignored `dtype` in silence
            kwargs["torch_dtype"] = kwargs.pop("dtype")
        return super().from_pretrained(str(folder), **kwargs)

    @classmethod
    def export_published_files(cls, folder: Path, target: Path) -> list[Path]:
        """Write a diffusers-layout folder as its authors' own code loads it; returns the files.

        Raises:
            ValueError: no such layout of this family is known.
        """
        raise ValueError(f"{folder} holds a {cls.__name__}, whose models are not published as single files.")

    @classmethod
    def default_scheduler(cls, reviser: DraftReviser | None = None) -> DecodingScheduler:
        """The scheduler of a model that was saved without one: seeded Jacobi, revised if it comes with a reviser."""
        return SeededJacobiScheduler() if reviser is None else RevisedJacobiScheduler()

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
        seeds: int | Iterable[int] | None = None,
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
                It may set `pipe.interrupt = True`; what it returns is ignored.
            callback_on_step_end_tensor_inputs: which of `canvas` (`[B, N]` tokens, drafts included), `committed`
                (`[B]` counts) and `acceptance_map` (`[B, N]`, the pass that committed each token, -1 for none) it
                receives.
            seeds: in place of a generator, the seed of each picture itself, as `statistics.seeds` records it: draws
                these pictures again, alone or in any batch. A list with one for each, or an integer for one picture.

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
        batch_size = len(prompts) * num_images_per_prompt
        check_generators(generator, batch_size)
        seeds = check_seeds(seeds, generator, batch_size)
        unknown = set(tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            known = ", ".join(self._callback_tensor_inputs)
            raise ValueError(f"callback_on_step_end_tensor_inputs: {sorted(unknown)} not in {known}.")
        layout = self.image_layout(height, width)
        negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
        used_negatives = negatives if guidance_scale > 1 else None
        self.check_prompts(prompts, used_negatives, layout)
        lacking = self.lacking(self.scheduler)
        if lacking is not None:
            raise ValueError(
                f"{type(self.scheduler).__name__} needs a {lacking} and this pipeline has none; pass `{lacking}`, or "
                "choose another scheduler."
            )

        for remark in self.prompt_remarks(prompts + (used_negatives or [])):
            logger.warning(remark)
        self._guidance_scale = guidance_scale
        self._interrupt = False
        device = self._execution_device
        seeds = self.prepare_seeds(generator, batch_size) if seeds is None else seeds

        clock = [time.perf_counter()]
        encoded = self.encode_prompt(prompts, negatives, guidance_scale > 1, num_images_per_prompt, layout)
        memory = self.prefill(encoded, layout, guidance_scale)
        clock.append(time.perf_counter())

        if self.scheduler.needs_codebook:
            self.scheduler.prepare_codebook(self.codebook_vectors())
        state = self.scheduler.start(layout, batch_size, device)
        noise = PositionNoise(seeds, device, state.canvas.shape[1])
        forced = state.forced

        def warp(logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:  # [B, Q, V] -> the law sampled from
            if forced is not None:
                logits = force(logits, forced[positions + 1], layout.codebook_size)
            return probabilities(logits, temperature, top_k, top_p)

        if self.scheduler.needs_drafter:
            state.drafter = memory.drafter = RunningDrafter(
                self.drafter,
                memory.image_embeds,
                lambda hidden, positions: warp(self.guided_logits(hidden, guidance_scale), positions),
                length=layout.num_tokens + self.scheduler.margin(layout),
                columns=layout.width,
            )
        if self.scheduler.needs_reviser:
            state.reviser = memory.reviser = RunningReviser(
                self.reviser,
                memory.image_embeds,
                warp,
                guidance_scale,
                columns=layout.width,
                length=state.canvas.shape[1],
            )
        now = pass_clock(device)
        with self.progress_bar(total=batch_size * layout.num_tokens) as bar:
            while not state.finished and not self.interrupt:
                begin = now()
                query = self.scheduler.plan(state, noise)
                law = warp(self.forward(query, memory), query.positions)
                state = self.scheduler.step(law, query, state, noise)
                state.synchronize()
                state.seconds = now() - begin
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

    def prepare_prompts(self, prompt: str | list[str]) -> list[str]:
        """One text per row of the batch. Raises `ValueError` where a text asks for a picture to be read."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        check_text_only(prompts, self.image_placeholder)
        return prompts

    def check_prompts(self, prompts: list[str], negatives: list[str] | None, layout: ImageTokenLayout) -> None:
        """Raise `ValueError` for a text that is too long for this model to read it and draw a picture."""
        limit = self.text_tokenizer.model_max_length
        room = self.model.config.get_text_config().max_position_embeddings - layout.num_tokens
        if room > 0:  # else the model draws beyond the context that it states
            limit = min(limit, room)
        for text in prompts:
            check_length(text, self.prompt_length(text, layout), limit)
        for text in negatives or ():
            check_length(text, self.prompt_length(text, layout, negative=True), limit)

    def prompt_remarks(self, texts: list[str]) -> list[str]:
        """What is lost of some prompts, in words, a line each; a call logs the same. Empty if nothing is."""
        return unknown_remarks(self.text_tokenizer, texts)

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
            mask = attention_bias(causal & prompt.visible[:, None, :-1] | itself, prompt.embeds.dtype)
            self.run_transformer(prompt.embeds[:, :-1], mask, position_ids[:, :-1], cache)
        image_embeds = self.embed_image_tokens(torch.arange(layout.vocabulary_size, device=prompt.embeds.device))
        return PromptMemory(
            cache, image_embeds, prompt.embeds[:, -1:], prompt.visible, position_ids[:, -1:], guidance_scale
        )

    def forward(self, query: Query, memory: PromptMemory) -> torch.Tensor:
        """Run the transformer on one query: `[B, Q]` tokens -> `[B, Q, V]` guided image logits."""
        prompt_length, copies = memory.visible.shape[1], 2 if memory.guided else 1

        def rows(values: torch.Tensor) -> torch.Tensor:  # [B, ...] -> [R, ...]
            return torch.cat([values] * copies) if copies > 1 else values

        positions = rows(query.positions)  # [R, Q]
        embeds = rows(functional.embedding(query.token_ids, memory.image_embeds))  # [R, Q, D]
        embeds = torch.where(positions[..., None] < 0, memory.last_embed, embeds)
        prompt_visible = memory.visible[:, None].expand(-1, positions.shape[1], -1)  # [R, Q, P]
        mask = attention_bias(torch.cat([prompt_visible, rows(query.visible)], -1), embeds.dtype)  # [R, 1, Q, P + S]
        if query.moves is not None:
            memory.cache.move(*(rows(slots) + prompt_length for slots in query.moves))
        slots = positions if query.slots is None else rows(query.slots)
        memory.cache.place(slots + prompt_length, mask.shape[-1])
        hidden = self.run_transformer(embeds, mask, memory.last_position + 1 + positions, memory.cache)
        logits = self.guided_logits(hidden, memory.guidance_scale)
        if memory.drafter is not None:
            memory.drafter.observe(query, hidden)
        if memory.reviser is not None:
            memory.reviser.observe(query, hidden, logits)
        return logits

    def guided_logits(self, hidden: torch.Tensor, guidance_scale: float) -> torch.Tensor:
        """Final hidden states `[R, Q, D]` -> `[B, Q, V]` image logits, the target's as well as a drafter's."""
        logits = self.image_logits(hidden)
        if guidance_scale > 1:
            conditional, unconditional = logits.float().chunk(2)
            logits = guide(conditional, unconditional, guidance_scale)
        return logits

    def lacking(self, scheduler: DecodingScheduler) -> str | None:
        """The component that a scheduler needs and this pipeline does not have; None if nothing is missing."""
        if scheduler.needs_drafter and self.drafter is None:
            return "drafter"
        if scheduler.needs_reviser and self.reviser is None:
            return "reviser"
        return None

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

    def canvas_numbers(self) -> int:
        """Numbers that the canvas keeps of one token: keys and values of every layer."""
        config = self.model.config.get_text_config()
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * config.num_key_value_heads * head_size

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerBase:
        """What reads the words of a prompt."""
        return self.tokenizer

    @abstractmethod
    def prompt_length(self, text: str, layout: ImageTokenLayout, negative: bool = False) -> int:
        """Tokens of a prompt with all that the family puts around it."""

    @property
    def image_placeholder(self) -> str | None:
        """What stands for a picture in a prompt of this family's understanding mode, which is out of scope."""
        return None

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
        encoded = self.embed_prompt(prompt, negative_prompt, guided, layout)
        return encoded.repeat_images(len(prompt), num_images_per_prompt)

    @abstractmethod
    def embed_prompt(
        self, prompt: list[str], negative_prompt: list[str] | None, guided: bool, layout: ImageTokenLayout
    ) -> EncodedPrompt:
        """As `encode_prompt`, one row per prompt and one per guidance prompt behind them."""

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
            return torch.cat([self.decode_grid(grid) for grid in grids])
        return torch.cat([decode_tiled(self.decode_grid, grid, self._tiling) for grid in grids])

    @abstractmethod
    def decode_grid(self, grid: torch.Tensor) -> torch.Tensor:
        """`[B, r, c]` codebook ids, a picture or a tile of one -> `[B, 3, H, W]` in about [-1, 1]."""
