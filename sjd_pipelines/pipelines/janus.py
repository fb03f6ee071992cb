"""Janus and Janus-Pro (Wu et al. 2024, Chen et al. 2025) around transformers' `JanusForConditionalGeneration`."""

from pathlib import Path
from typing import Any

import torch
from transformers import JanusForConditionalGeneration, JanusProcessor, PreTrainedTokenizerBase

from ..decoding import CanvasCache, ImageTokenLayout
from ..models import render_janus_codes
from ..schedulers import DecodingScheduler
from .autoregressive import SJDAutoRegressivePipeline
from .companions import with_companions
from .language_model import final_hidden_states
from .prompts import EncodedPrompt
from .vocabulary import in_format_of
from .weights import load_transformers_model


class SJDJanusPipeline(SJDAutoRegressivePipeline):
    """Janus-Pro's own recipe: chat template, pads attended in the unconditional rows, guidance 5, temperature 1.

    Args:
        model: language model, generation head and VQ decoder, unmodified.
        processor: tokenizer and chat template.
        scheduler: decides which tokens to draft, verify and commit.
    """

    @with_companions
    def __init__(
        self,
        model: JanusForConditionalGeneration,
        processor: JanusProcessor,
        scheduler: DecodingScheduler,
    ):
        super().__init__()
        self.register_modules(model=model, processor=processor, scheduler=scheduler)

    @classmethod
    def load_transformers_parts(
        cls, folder: Path, dtype: torch.dtype = torch.float32, **kwargs: Any
    ) -> dict[str, Any]:
        """What the constructor takes of a folder as transformers writes it; `kwargs` go to the model's loader."""
        model = load_transformers_model(JanusForConditionalGeneration, folder, dtype=dtype, **kwargs)
        return {"model": model, "processor": JanusProcessor.from_pretrained(folder)}

    def sampling_defaults(self) -> dict[str, Any]:
        # What the checkpoint states: transformers' generic defaults (top-k 50 in version 4) are not Janus' recipe.
        stated = self.model.generation_config.to_diff_dict()
        recipe = {"guidance_scale": 5.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        return {name: value if stated.get(name) is None else stated[name] for name, value in recipe.items()}

    def image_layout(self, height: int | None, width: int | None) -> ImageTokenLayout:
        rows, columns = self.model.model.vqmodel.quantize.quant_state_dims
        scale = self._pixels_per_token
        if height not in (None, rows * scale) or width not in (None, columns * scale):
            asked = f"{height or rows * scale}x{width or columns * scale}"
            raise ValueError(f"This model draws {rows * scale}x{columns * scale} pixels only, got {asked}.")
        return ImageTokenLayout(rows, columns, self.model.config.vq_config.num_embeddings)

    def image_sizes(self) -> list[tuple[int, int]]:
        layout, scale = self.image_layout(None, None), self._pixels_per_token
        return [(layout.rows * scale, layout.columns * scale)]

    @property
    def image_placeholder(self) -> str:
        return self.processor.image_token

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerBase:
        return self.processor.tokenizer

    def prompt_length(self, text: str, layout: ImageTokenLayout, negative: bool = False) -> int:
        return len(self.text_tokenizer(self.format_prompt(text), verbose=False).input_ids) + 1  # begin of image

    def embed_prompt(
        self, prompt: list[str], negative_prompt: list[str] | None, guided: bool, layout: ImageTokenLayout
    ) -> EncodedPrompt:
        self.onload(self.model)
        texts = [self.format_prompt(text) for text in prompt]
        if guided and negative_prompt is not None:
            texts += [self.format_prompt(text) for text in negative_prompt]
        inputs = self.processor(text=texts, generation_mode="image", padding=True, return_tensors="pt")
        ids, visible = inputs["input_ids"], inputs["attention_mask"].bool()  # [R, P], left-padded
        if guided and negative_prompt is None:
            tokenizer = self.processor.tokenizer
            kept = (ids == tokenizer.bos_token_id) | (ids == ids[:, -1:])  # the last token begins the image
            ids = torch.cat([ids, ids.masked_fill(~kept, tokenizer.pad_token_id)])
            # As in the original, the pads that replace the words are attended.
            visible = visible.repeat(2, 1)
        ids, visible = ids.to(self._execution_device), visible.to(self._execution_device)
        return EncodedPrompt(self.model.get_input_embeddings()(ids), visible)

    def embed_image_tokens(self, token_ids: torch.Tensor) -> torch.Tensor:
        return self.model.prepare_embeddings_for_image_generation(token_ids)

    def run_transformer(
        self, embeds: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor, cache: CanvasCache
    ) -> torch.Tensor:
        return final_hidden_states(self.model.model.language_model, embeds, mask, position_ids, cache)

    def image_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return in_format_of(hidden, self.model.model.generation_head)

    def codebook_vectors(self) -> torch.Tensor:
        # The quantiser normalises at every look-up.
        codebook = self.model.model.vqmodel.quantize.embedding.weight.detach()
        return torch.nn.functional.normalize(codebook.to(self._execution_device), dim=-1)

    def render_grid(self, grid: torch.Tensor) -> torch.Tensor:
        return render_janus_codes(self.model.model.vqmodel, grid)

    @property
    def _pixels_per_token(self) -> int:
        return 2 ** (len(self.model.config.vq_config.channel_multiplier) - 1)

    def format_prompt(self, text: str) -> str:
        """The chat template around the words."""
        message = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        return self.processor.apply_chat_template(message, add_generation_prompt=True)
