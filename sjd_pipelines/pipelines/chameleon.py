"""Anole and Lumina-mGPT (Chern et al. 2024, Liu et al. 2024) around transformers' `ChameleonForConditionalGeneration`.

Both are Chameleon (2024, arXiv 2405.09818) taught to draw. The library has neither a decoder for its VQGAN, which is
diffusers' `VQModel` here, nor image logits, which its own forward pass suppresses.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel
from transformers import AutoTokenizer, ChameleonForConditionalGeneration, PreTrainedTokenizerBase

from ..decoding import CanvasCache, ImageTokenLayout
from ..models import render_codes
from ..schedulers import DecodingScheduler
from .autoregressive import SJDAutoRegressivePipeline
from .chameleon_recipes import IMAGE_END, IMAGE_PLACEHOLDER, RECIPES, ROW_END, image_vocabulary_ids, recipe_of_folder
from .chameleon_weights import load_language_model, load_vq_model
from .companions import with_companions
from .language_model import final_hidden_states
from .prompts import EncodedPrompt
from .vocabulary import ImageVocabulary


class SJDChameleonPipeline(SJDAutoRegressivePipeline):
    """Chameleon descendants that draw; `recipe` says which one: prompt, sizes, row ends and sampling differ.

    Args:
        model: language model with image tokens in its vocabulary, unmodified.
        vq_model: decoder of the image tokens.
        tokenizer: of the language model.
        scheduler: decides which tokens to draft, verify and commit.
        recipe: `anole` or `lumina-mgpt`.
        resolution: side in pixels of the square whose area the model's pictures have.
    """

    model_cpu_offload_seq = "model->vq_model"

    @with_companions
    def __init__(
        self,
        model: ChameleonForConditionalGeneration,
        vq_model: VQModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: DecodingScheduler,
        recipe: str = "anole",
        resolution: int = 512,
    ):
        super().__init__()
        if recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}; got {recipe!r}.")
        self.register_modules(model=model, vq_model=vq_model, tokenizer=tokenizer, scheduler=scheduler)
        self.register_to_config(recipe=recipe, resolution=resolution)
        self.recipe = RECIPES[recipe]

    @classmethod
    def load_transformers_parts(
        cls,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        vq_model: VQModel | str | Path | None = None,
        recipe: str | None = None,
        resolution: int | None = None,
        hub_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What the constructor takes of a folder as transformers writes it.

        Args:
            folder: language model and tokenizer.
            dtype: of the language model; the VQGAN stays in float32.
            vq_model: the decoder, a folder of one, or Meta's `vqgan.ckpt` (a path or `owner/name/file` on the hub);
                None looks in `folder`.
            recipe: `anole` or `lumina-mgpt`; None reads it from config.json.
            resolution: as in the class; None reads it from the name of the model.
            hub_options: for the download of a decoder.
            **kwargs: for the model's `from_pretrained`.

        Raises:
            ValueError: the folder does not say which recipe or resolution it is for, or has no VQGAN decoder.
        """
        recipe, resolution = recipe_of_folder(folder, recipe, resolution)
        vq_model = load_vq_model(folder, vq_model, hub_options)
        model = load_language_model(folder, dtype=dtype, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        vq_model = vq_model.to(model.device)
        parts = {"model": model, "vq_model": vq_model, "tokenizer": tokenizer}
        return parts | {"recipe": recipe, "resolution": resolution}

    @classmethod
    def settings_of_folder(cls, folder: Path) -> dict[str, Any]:
        recipe, resolution = recipe_of_folder(folder, None, None)
        return {"recipe": recipe, "resolution": resolution}

    def sampling_defaults(self) -> dict[str, Any]:
        return dict(self.recipe.sampling)

    def image_sizes(self) -> list[tuple[int, int]]:
        return self.recipe.image_sizes(self.config.resolution)

    def image_layout(self, height: int | None, width: int | None) -> ImageTokenLayout:
        sizes = self.image_sizes()
        size = (sizes[0][0] if height is None else height, sizes[0][1] if width is None else width)
        if size not in sizes:
            some = ", ".join(f"{high}x{wide}" for high, wide in sizes[:8])
            raise ValueError(f"This model draws {some}{', ...' if len(sizes) > 8 else ''}; got {size[0]}x{size[1]}.")
        scale = 2 ** (len(self.model.config.vq_config.channel_multiplier) - 1)
        rows, columns, codes = size[0] // scale, size[1] // scale, self.model.config.vq_config.num_embeddings
        if self.recipe.row_ends:
            return ImageTokenLayout(rows, columns, codes, 2, row_end=codes + 1, tail=(codes,))
        return ImageTokenLayout(rows, columns, codes, 1, tail=(codes,))

    @property
    def image_placeholder(self) -> str:
        return IMAGE_PLACEHOLDER

    def prompt_length(self, text: str, layout: ImageTokenLayout, negative: bool = False) -> int:
        return len(self._prompt_ids(text, layout)) + len(self.recipe.header(layout))

    def embed_prompt(
        self, prompt: list[str], negative_prompt: list[str] | None, guided: bool, layout: ImageTokenLayout
    ) -> EncodedPrompt:
        self.onload(self.model)
        words, start = self.model.config.vocabulary_map, self.tokenizer.bos_token_id
        header = [words[name] for name in self.recipe.header(layout)]
        rows = [self._prompt_ids(text, layout) + header for text in prompt]
        if guided and negative_prompt is not None:
            rows += [self._prompt_ids(text, layout) + header for text in negative_prompt]
        elif guided:
            rows += [[start] * self.recipe.unconditional_start + header] * len(prompt)
        length = max(map(len, rows))
        ids = torch.tensor([[start] * (length - len(row)) + row for row in rows], device=self._execution_device)
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        visible = torch.arange(length, device=ids.device) >= length - lengths[:, None]  # [R, P], left-padded
        return EncodedPrompt(self.model.get_input_embeddings()(ids), visible)

    def embed_image_tokens(self, token_ids: torch.Tensor) -> torch.Tensor:
        return self.model.get_input_embeddings()(self._vocabulary.ids(token_ids))

    def run_transformer(
        self, embeds: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor, cache: CanvasCache
    ) -> torch.Tensor:
        return final_hidden_states(self.model.model, embeds, mask, position_ids, cache)

    def image_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._vocabulary.logits(hidden, self.model.lm_head)

    def codebook_vectors(self) -> torch.Tensor:
        return self.vq_model.quantize.embedding.weight.detach().to(self._execution_device)

    def render_grid(self, grid: torch.Tensor) -> torch.Tensor:
        return render_codes(self.vq_model, grid)

    @cached_property
    def _vocabulary(self) -> ImageVocabulary:
        words = self.model.config.vocabulary_map
        structural = [IMAGE_END, ROW_END] if self.recipe.row_ends else [IMAGE_END]
        return ImageVocabulary(image_vocabulary_ids(words), [words[name] for name in structural])

    def _prompt_ids(self, text: str, layout: ImageTokenLayout) -> list[int]:
        """Ids up to the end of the user's turn."""
        ids = self.tokenizer(self.recipe.prompt(text, layout), add_special_tokens=False, verbose=False).input_ids
        return [self.tokenizer.bos_token_id, *ids, self.model.config.vocabulary_map["<reserved08706>"]]
