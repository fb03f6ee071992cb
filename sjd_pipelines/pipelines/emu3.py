"""Emu3-Gen (Wang et al. 2024, arXiv 2409.18869) around transformers' `Emu3ForConditionalGeneration`."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Emu3ForConditionalGeneration, PreTrainedTokenizerBase

from ..decoding import CanvasCache, ImageTokenLayout
from ..schedulers import DecodingScheduler
from .autoregressive import SJDAutoRegressivePipeline
from .companions import with_companions
from .grouped_attention import group_queries
from .language_model import final_hidden_states
from .prompts import EncodedPrompt
from .vocabulary import ImageVocabulary
from .weights import load_transformers_model

# The words that the authors add to every prompt, and the prompt of their unconditional branch.
POSITIVE_SUFFIX = " masterpiece, film grained, best quality."
NEGATIVE_PROMPT = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
)
ROW_END, FRAME_END, IMAGE_END = "<|extra_200|>", "<|extra_201|>", "<|image end|>"
RATIOS = ("1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16")


class SJDEmu3Pipeline(SJDAutoRegressivePipeline):
    """Emu3-Gen's own recipe: prompt suffix, negative prompt with the same size header, guidance 3, top-k 2048.

    Args:
        model: language model with image tokens in its vocabulary, and VQ decoder; its attention is set to that of
            `grouped_attention`, which computes the same.
        tokenizer: with the special tokens that frame a picture.
        scheduler: decides which tokens to draft, verify and commit.
        image_area: pixels of a picture whose size is not given.
    """

    @with_companions
    def __init__(
        self,
        model: Emu3ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: DecodingScheduler,
        image_area: int = 720 * 720,
    ):
        super().__init__()
        group_queries(model.model.text_model)
        self.register_modules(model=model, tokenizer=tokenizer, scheduler=scheduler)
        self.register_to_config(image_area=image_area)

    @classmethod
    def load_transformers_parts(
        cls, folder: Path, dtype: torch.dtype = torch.float32, image_area: int = 720 * 720, **kwargs: Any
    ) -> dict[str, Any]:
        """What the constructor takes of a folder as transformers writes it; `kwargs` go to the model's loader."""
        model = load_transformers_model(Emu3ForConditionalGeneration, folder, dtype=dtype, **kwargs)
        return {"model": model, "tokenizer": AutoTokenizer.from_pretrained(folder), "image_area": image_area}

    def sampling_defaults(self) -> dict[str, Any]:
        return {"guidance_scale": 3.0, "temperature": 1.0, "top_k": 2048, "top_p": 1.0}

    def image_size(self, ratio: str = "1:1", image_area: int | None = None) -> tuple[int, int]:
        """Height and width in pixels of a `width:height` ratio and an area (None: the default), in whole tokens."""
        try:
            wide, high = (int(part) for part in ratio.split(":"))
        except ValueError:
            raise ValueError(f"ratio must be width:height, for instance 16:9; got {ratio!r}.") from None
        if wide < 1 or high < 1:
            raise ValueError(f"ratio must have two positive parts, got {ratio!r}.")
        area = self.config.image_area if image_area is None else image_area
        unit = (area / (wide * high)) ** 0.5
        scale = self._pixels_per_token
        return round(high * unit / scale) * scale, round(wide * unit / scale) * scale

    def image_sizes(self) -> list[tuple[int, int]]:
        return [self.image_size(ratio) for ratio in RATIOS]

    def image_layout(self, height: int | None, width: int | None) -> ImageTokenLayout:
        default_height, default_width = self.image_size()
        height = default_height if height is None else height
        width = default_width if width is None else width
        scale = self._pixels_per_token
        if height < scale or width < scale or height % scale or width % scale:
            raise ValueError(f"height and width must be multiples of {scale}, got {height}x{width}.")
        codes = self.model.config.vq_config.codebook_size
        # Structural ids: row end, frame end, image end, end of sequence
        layout = ImageTokenLayout(height // scale, width // scale, codes, 4, codes, (codes + 1, codes + 2, codes + 3))
        context = self.model.config.text_config.max_position_embeddings
        if layout.num_tokens >= context:
            raise ValueError(f"{height}x{width} needs {layout.num_tokens} tokens; this model's context is {context}.")
        return layout

    @property
    def image_placeholder(self) -> str:
        return self.tokenizer.image_token

    def prompt_length(self, text: str, layout: ImageTokenLayout, negative: bool = False) -> int:
        text = self._framed(text if negative else text + POSITIVE_SUFFIX, layout)
        return len(self.tokenizer(text, verbose=False).input_ids)

    def embed_prompt(
        self, prompt: list[str], negative_prompt: list[str] | None, guided: bool, layout: ImageTokenLayout
    ) -> EncodedPrompt:
        self.onload(self.model)
        texts = [text + POSITIVE_SUFFIX for text in prompt]
        if guided:
            texts += [NEGATIVE_PROMPT] * len(prompt) if negative_prompt is None else negative_prompt
        texts = [self._framed(text, layout) for text in texts]
        inputs = self.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt").to(
            self._execution_device
        )
        return EncodedPrompt(self.model.get_input_embeddings()(inputs.input_ids), inputs.attention_mask.bool())

    def embed_image_tokens(self, token_ids: torch.Tensor) -> torch.Tensor:
        return self.model.get_input_embeddings()(self._vocabulary.ids(token_ids))

    def run_transformer(
        self, embeds: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor, cache: CanvasCache
    ) -> torch.Tensor:
        return final_hidden_states(self.model.model.text_model, embeds, mask, position_ids, cache)

    def image_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._vocabulary.logits(hidden, self.model.lm_head)

    def codebook_vectors(self) -> torch.Tensor:
        return self.model.model.vqmodel.quantize.embedding.weight.detach().to(self._execution_device)

    def render_grid(self, grid: torch.Tensor) -> torch.Tensor:
        return self.model.model.vqmodel.decode(grid)

    def _framed(self, text: str, layout: ImageTokenLayout) -> str:
        """A prompt between the tokens that open the sequence and the picture, whose size they state."""
        special = self.tokenizer
        header = f"{special.boi_token}{layout.rows}*{layout.columns}{special.image_wrapper_token}"
        return f"{special.bos_token}{text}{header}"

    @property
    def _pixels_per_token(self) -> int:
        return 2 ** (len(self.model.config.vq_config.channel_multiplier) - 1)

    @cached_property
    def _vocabulary(self) -> ImageVocabulary:
        words = self.model.config.vocabulary_map
        codes = self.model.config.vq_config.codebook_size
        end = self.model.config.text_config.eos_token_id
        return ImageVocabulary(
            [words[f"<|visual token {code:06d}|>"] for code in range(codes)],
            [words[ROW_END], words[FRAME_END], words[IMAGE_END], end[0] if isinstance(end, list) else end],
        )
