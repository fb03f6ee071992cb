"""LlamaGen (Sun et al. 2024, arXiv 2406.06525): class- and text-conditional, on our own transformer."""

from pathlib import Path
from typing import Any, Optional

import torch
from diffusers import VQModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel

from ..companions import COMPANIONS
from ..decoding import CanvasCache, ImageTokenLayout
from ..models import (
    PAR_GUIDANCE,
    LlamaGenTransformer,
    image_size_of,
    llamagen_from_published,
    published_llamagen_weights,
    published_vq_weights,
    read_published_file,
    render_codes,
    vq_model_from_published,
    write_published_file,
)
from ..models.llamagen import CONDITION
from ..schedulers import DecodingScheduler, ParallelGroupsScheduler
from .autoregressive import SJDAutoRegressivePipeline
from .captions import clean_caption
from .classes import class_index, keyed_by_text
from .companions import with_companions
from .inputs import SIDE
from .prompts import EncodedPrompt
from .vocabulary import in_format_of
from .weights import load_network
from .words import cleaned_remarks, cut_remarks, unknown_remarks

TEXT_ENCODER = "google/flan-t5-xl"
_CAPTION_SAMPLING = {"guidance_scale": 7.5, "temperature": 1.0, "top_k": 1000, "top_p": 1.0}
_CLASS_SAMPLING = {"guidance_scale": 4.0, "temperature": 1.0, "top_k": 2000, "top_p": 1.0}
_PAR_SAMPLING = {"guidance_scale": 1.5, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


class SJDLlamaGenPipeline(SJDAutoRegressivePipeline):
    """LlamaGen's own recipes: T5 captions with guidance 7.5 and top-k 1000, or ImageNet classes with 4 and 2000.

    A class-conditional model takes class indices as prompts: `pipe(207)`, `pipe([207, 360])`, the same as text, or
    names where it has them. PAR (Wang et al. 2024, arXiv 2412.15119) is such a model, trained to make several tokens
    at once, and sampled with guidance 1.5 among all tokens.

    Args:
        transformer: predicts image tokens.
        vq_model: image tokenizer.
        scheduler: decides which tokens to draft, verify and commit.
        text_encoder: T5 encoder of a text-conditional model, else None.
        tokenizer: its tokenizer, else None.
        id2label: names of the classes by index; None where they have none.
        sampling: `guidance_scale`, `temperature`, `top_k`, `top_p` of a call that is not told otherwise; what is left
            out is as published.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vq_model"
    _optional_components = ["text_encoder", "tokenizer", *COMPANIONS]

    @with_companions
    def __init__(
        self,
        transformer: LlamaGenTransformer,
        vq_model: VQModel,
        scheduler: DecodingScheduler,
        # diffusers before 0.36 does not read `X | None` from a signature.
        text_encoder: Optional[T5EncoderModel] = None,  # noqa: UP045
        tokenizer: Optional[PreTrainedTokenizerBase] = None,  # noqa: UP045
        id2label: Optional[dict] = None,  # noqa: UP045
        sampling: Optional[dict[str, Any]] = None,  # noqa: UP045
    ):
        super().__init__()
        unknown = set(sampling or ()) - set(_CLASS_SAMPLING)
        if unknown:
            raise ValueError(f"sampling: {sorted(unknown)} not in {', '.join(_CLASS_SAMPLING)}.")
        self.register_modules(
            transformer=transformer,
            vq_model=vq_model,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        self.register_to_config(id2label=keyed_by_text(id2label), sampling=dict(sampling or {}))

    @classmethod
    def load_published_files(
        cls,
        file: Path,
        vq_file: Path,
        text_encoder: T5EncoderModel | str | Path = TEXT_ENCODER,
        tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
        image_size: int | None = None,
        num_attention_heads: int | None = None,
        dtype: torch.dtype = torch.float32,
        scheduler: DecodingScheduler | None = None,
        hub_options: dict[str, Any] | None = None,
    ) -> "SJDLlamaGenPipeline":
        """Load the files as they are published.

        Args:
            file: the transformer, for instance `t2i_XL_stage2_512.pt`, `c2i_B_256.pt` or `PAR-XL-4x.pt`.
            vq_file: the image tokenizer, for instance `vq_ds16_t2i.pt` or `vq_ds16_c2i.pt`.
            text_encoder: T5 encoder, or the folder or hub id to load it from; not used by a class-conditional model.
            tokenizer: its tokenizer, or where to load it from; None is where the text encoder is.
            image_size: pixels per side; None reads it from the name of `file`, where alone it is stated (PAR: 384).
            num_attention_heads: None is that of the published model of this width.
            dtype: of transformer and text encoder; the image tokenizer stays in float32.
            scheduler: default seeded Jacobi, or PAR's own.
            hub_options: for the download of text encoder and tokenizer.

        Raises:
            OSError: a file is not there, or damaged.
            ValueError: the weights are not a LlamaGen's, or the name of `file` lacks what is asked of it.
        """
        hub_options = hub_options or {}
        vq_model, file = vq_model_from_published(read_published_file(vq_file)), Path(file)
        weights = read_published_file(file)
        image_size = SIDE.check("image_size", image_size_of(file, weights) if image_size is None else image_size)
        scale = 2 ** (len(vq_model.config.block_out_channels) - 1)
        if image_size % scale:
            raise ValueError(f"image_size must be a multiple of {scale}, got {image_size}.")
        transformer = llamagen_from_published(weights, image_size // scale, num_attention_heads)
        if transformer.config.num_classes is not None:
            text_encoder = tokenizer = None
        elif isinstance(text_encoder, str | Path):
            source = text_encoder
            text_encoder = T5EncoderModel.from_pretrained(source, dtype=dtype, use_safetensors=True, **hub_options)
            tokenizer = source if tokenizer is None else tokenizer
        if isinstance(tokenizer, str | Path):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer, **hub_options)
        # Past diffusers' own `to`, which warns of float32 modules that there are none of.
        torch.nn.Module.to(transformer, dtype)
        return cls(
            transformer=transformer,
            vq_model=vq_model,
            scheduler=scheduler or cls.scheduler_of(transformer),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            sampling={"guidance_scale": PAR_GUIDANCE[file.stem]} if file.stem in PAR_GUIDANCE else None,
        )

    @classmethod
    def scheduler_of(cls, transformer: LlamaGenTransformer) -> DecodingScheduler:
        """The scheduler of a model that was saved without one."""
        return cls.default_scheduler() if transformer.config.parallel_tokens == 1 else ParallelGroupsScheduler()

    @classmethod
    def export_published_files(cls, folder: Path, target: Path) -> list[Path]:
        """Write the two files that LlamaGen's own code loads, named by picture size as the published ones are.

        Returns:
            The transformer's file and the image tokenizer's.
        """
        transformer = load_network(LlamaGenTransformer, folder / "transformer", torch.float32)
        vq_model = load_network(VQModel, folder / "vq_model", torch.float32)
        scale = 2 ** (len(vq_model.config.block_out_channels) - 1)
        kind = "t2i" if transformer.config.num_classes is None else "c2i"
        parallel = transformer.config.parallel_tokens
        name = kind if parallel == 1 else f"PAR-{parallel}x"
        file = target / f"{name}_{transformer.config.sample_size * scale}.pt"
        vq_file = target / f"vq_ds{scale}_{kind}.pt"
        write_published_file(published_llamagen_weights(transformer), file)
        write_published_file(published_vq_weights(vq_model, "llamagen"), vq_file)
        return [file, vq_file]

    @property
    def class_count(self) -> int:
        return self.transformer.config.num_classes or 0

    @property
    def class_conditional(self) -> bool:
        return self.class_count > 0

    def sampling_defaults(self) -> dict[str, Any]:
        published = _CLASS_SAMPLING if self.class_conditional else _CAPTION_SAMPLING
        if self.transformer.config.parallel_tokens > 1:
            published = _PAR_SAMPLING
        return published | dict(self.config.sampling)

    def class_names(self) -> list[str]:
        """Names of the classes in the order of their indices; none where they have none."""
        return list((self.config.id2label or {}).values())

    def image_sizes(self) -> list[tuple[int, int]]:
        side = self.transformer.config.sample_size * self._pixels_per_token
        return [(side, side)]

    def canvas_numbers(self) -> int:
        return 2 * self.transformer.config.num_layers * self.transformer.config.hidden_size

    def image_layout(self, height: int | None, width: int | None) -> ImageTokenLayout:
        [(side, _)] = self.image_sizes()
        if height not in (None, side) or width not in (None, side):
            raise ValueError(f"This model draws {side}x{side} pixels only, got {height or side}x{width or side}.")
        config = self.transformer.config
        return ImageTokenLayout.in_regions(
            config.sample_size, config.sample_size, config.codebook_size, config.parallel_tokens
        )

    def image_position_ids(
        self, cells: torch.Tensor, last_position: torch.Tensor, layout: ImageTokenLayout
    ) -> torch.Tensor:
        """Raster indices; learned tokens, which stand after the image, count as condition."""
        return cells if layout.parallel == 1 else cells.masked_fill(cells >= layout.num_tokens, CONDITION)

    def prepare_prompts(self, prompt: str | int | list[str] | list[int]) -> list[str]:
        """Texts, or class indices as texts; the latter are checked here."""
        prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
        if self.class_conditional:
            return [str(self._class_index(label)) for label in prompts]
        return super().prepare_prompts(prompt)

    def check_prompts(self, prompts: list[str], negatives: list[str] | None, layout: ImageTokenLayout) -> None:
        """Captions are cut to their length, as published, and classes have none."""

    def prompt_remarks(self, texts: list[str]) -> list[str]:
        if self.class_conditional:
            return []
        captions = [clean_caption(text) for text in texts]
        return [
            *cleaned_remarks(texts, captions),
            *unknown_remarks(self.tokenizer, captions, typed=texts),
            *cut_remarks(self.tokenizer, captions, self.transformer.config.caption_length),
        ]

    def embed_prompt(
        self, prompt: list[str], negative_prompt: list[str] | None, guided: bool, layout: ImageTokenLayout
    ) -> EncodedPrompt:
        encode = self._encode_classes if self.class_conditional else self._encode_captions
        embeds, visible = encode(prompt, negative_prompt, guided)
        return EncodedPrompt(embeds, visible, torch.full(visible.shape, CONDITION, device=visible.device))

    def embed_image_tokens(self, token_ids: torch.Tensor) -> torch.Tensor:
        return self.transformer.embed(token_ids)

    def run_transformer(
        self, embeds: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor, cache: CanvasCache
    ) -> torch.Tensor:
        return self.transformer(embeds, mask, position_ids, cache)

    def image_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return in_format_of(hidden, self.transformer.head)

    def codebook_vectors(self) -> torch.Tensor:
        return self.vq_model.quantize.embedding.weight.detach().to(self._execution_device)

    def render_grid(self, grid: torch.Tensor) -> torch.Tensor:
        return render_codes(self.vq_model, grid)

    @property
    def _pixels_per_token(self) -> int:
        return 2 ** (len(self.vq_model.config.block_out_channels) - 1)

    def _class_index(self, label: str | int) -> int:
        return class_index(label, self.transformer.config.num_classes, self.class_names())

    def _encode_classes(
        self, prompt: list[str], negative_prompt: list[str] | None, guided: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`[R, 1, D]` embedded classes and `[R, 1]` visibility: the whole prompt is one token."""
        labels = [self._class_index(label) for label in prompt]
        if guided:
            no_class = self.transformer.config.num_classes
            labels += [self._class_index(label) for label in negative_prompt or ()] or [no_class] * len(prompt)
        self.onload(self.transformer)
        ids = torch.tensor(labels, device=self._execution_device)[:, None]
        return self.transformer.class_embedding(ids), torch.ones_like(ids, dtype=torch.bool)

    def _encode_captions(
        self, prompt: list[str], negative_prompt: list[str] | None, guided: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`[R, P, D]` embedded captions and `[R, P]` visibility, the words at the end."""
        texts = prompt + (negative_prompt if guided and negative_prompt is not None else [])
        features, visible = self._caption_features([clean_caption(text) for text in texts])
        if guided and negative_prompt is None:
            unconditional = self.transformer.caption_embedding.unconditional.to(features)
            features = torch.cat([features, unconditional.expand_as(features)])
            visible = visible.repeat(2, 1)  # as in training, the padding of the caption it takes the place of
        self.onload(self.transformer)
        return self.transformer.caption_embedding(features), visible

    def _caption_features(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """T5 features `[C, P, channels]`, zero at padding, and visibility `[C, P]`."""
        length = self.transformer.config.caption_length
        inputs = self.tokenizer(
            texts, max_length=length, padding="max_length", padding_side="right", truncation=True, return_tensors="pt"
        ).to(self._execution_device)
        features = self.text_encoder(inputs.input_ids, attention_mask=inputs.attention_mask).last_hidden_state
        counts = inputs.attention_mask.sum(-1, keepdim=True)  # [C, 1] words
        # T5 pads after the words, the transformer before them: turn each row until its words are last.
        index = (torch.arange(length, device=features.device) + counts) % length  # [C, P]
        visible = inputs.attention_mask.gather(1, index).bool()
        features = features.gather(1, index[..., None].expand_as(features)) * visible[..., None]
        return features.to(self.transformer.dtype), visible
