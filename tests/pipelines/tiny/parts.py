"""What the tiny members of several families are made of."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import VQModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sjd_pipelines import SJDAutoRegressivePipeline

WORDS = ["a", "red", "green", "blue", "dog", "cat", "car", "house", "on", "left", "right", "of", "two", "three"]
TEXTS = ("a red dog", "two blue cat on a red house", "car")


@dataclass(frozen=True)
class Member:
    """One tiny random model.

    Attributes:
        make: the pipeline, of 9 to 16 tokens per picture.
        enumerable: the same with 2 x 2 tokens from a codebook of 4, so 256 pictures at most.
        prompts: three.
    """

    make: Callable[[], SJDAutoRegressivePipeline]
    enumerable: Callable[[], SJDAutoRegressivePipeline]
    prompts: tuple[str | int, ...] = TEXTS


def randomise(model: torch.nn.Module, seed: int = 0, gain: float = 1.0) -> torch.nn.Module:
    """Weights of unit gain from `seed`, tokens far apart, logits of standard deviation about `gain`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                embedding = "embed" in name or name.startswith("shared")
                scale = 1.0 if embedding else parameter[0].numel() ** -0.5
                parameter.normal_(generator=generator).mul_(scale * (gain if "head" in name else 1.0))
        for buffer in model.buffers():
            if buffer.dtype == torch.float32 and buffer.ndim == 2:
                buffer.normal_(generator=generator)
    return model.eval()


def word_tokenizer(special: dict[str, int], size: int, **names: str) -> PreTrainedTokenizerFast:
    """Splits at spaces and around special tokens; `special` have the ids they name, words follow them."""
    free = (token for token in range(size) if token not in special.values())
    vocabulary = special | {word: next(free) for word in ["<unk>", *WORDS]}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([name for name in special if name.startswith("<")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", padding_side="left", **names)


def build(make):
    """Libraries initialise from the global generator, which stays where it was."""
    with torch.random.fork_rng(devices=[]):
        return make()


def vq_model(levels: int, codes: int = 16, channels: int = 32) -> VQModel:
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
        block_out_channels=(channels,) * levels,
        norm_num_groups=channels,
        layers_per_block=1,
        latent_channels=32,
        num_vq_embeddings=codes,
        vq_embed_dim=8,
        lookup_from_codebook=True,
    )
