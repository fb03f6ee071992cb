"""Tiny random members of every family; prompts of different lengths share one word-level tokenizer."""

import pytest
import torch
from diffusers import VQModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    Emu3Config,
    Emu3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from sjd_pipelines import (
    AutoregressiveScheduler,
    LlamaGenTransformer,
    SJDChameleonPipeline,
    SJDEmu3Pipeline,
    SJDLlamaGenPipeline,
)

WORDS = ["a", "red", "green", "blue", "dog", "cat", "car", "house", "on", "left", "right", "of", "two", "three"]


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


def vq_model(levels: int, codes: int = 16) -> VQModel:
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
        block_out_channels=(32,) * levels,
        layers_per_block=1,
        latent_channels=32,
        num_vq_embeddings=codes,
        vq_embed_dim=8,
        lookup_from_codebook=True,
    )


def llamagen_pipeline(
    classes: int | None = None, side: int = 4, codes: int = 16, slots: int = 8, levels: int = 2
) -> SJDLlamaGenPipeline:
    condition = {"caption_channels": 16, "caption_length": slots} if classes is None else {"caption_channels": None}
    transformer = build(
        lambda: LlamaGenTransformer(
            num_layers=2,
            num_attention_heads=2,
            hidden_size=32,
            codebook_size=codes,
            sample_size=side,
            num_classes=classes,
            **condition,
        )
    )
    text_encoder = tokenizer = None
    if classes is None:
        tokenizer = word_tokenizer({"<pad>": 0, "</s>": 1}, 32, pad_token="<pad>", eos_token="</s>")
        config = T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        text_encoder = randomise(build(lambda: T5EncoderModel(config)))
    pipe = SJDLlamaGenPipeline(
        transformer=randomise(transformer, gain=2.0),
        vq_model=randomise(build(lambda: vq_model(levels, codes))),
        scheduler=AutoregressiveScheduler(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def emu3_words(codes: int) -> dict[str, int]:
    special = {"<pad>": 0, "<s>": 1, "</s>": 2, "<image>": 3, "<|image start|>": 4, "<|image end|>": 5}
    special |= {"<|image token|>": 6, "<|extra_200|>": 7, "<|extra_201|>": 8}
    special |= {f"{rows}*{columns}": 9 + rows * 4 + columns for rows in range(2, 5) for columns in range(2, 5)}
    return special | {f"<|visual token {code:06d}|>": 40 + code for code in range(codes)}


def emu3_pipeline(
    side: int = 3, codes: int = 16, words: dict[str, int] | None = None, size: int | None = None, levels: int = 2
) -> SJDEmu3Pipeline:
    special = emu3_words(codes) if words is None else words
    size = 40 + codes + 24 if size is None else size
    config = Emu3Config(
        text_config={
            "vocab_size": size,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512 if words is None else 9216,
            "pad_token_id": special["<pad>"],
            "bos_token_id": special["<s>"],
            "eos_token_id": special["</s>"],
            "attention_dropout": 0.0,
        },
        vq_config={
            "codebook_size": codes,
            "embed_dim": 4,
            "latent_channels": 4,
            "base_channels": 32,
            "channel_multiplier": [1] * levels,
            "num_res_blocks": 1,
            "attn_resolutions": [levels - 1],
            "hidden_size": 32,
            "temporal_downsample_factor": 1,
        },
        vocabulary_map=special,
    )
    model = randomise(build(lambda: Emu3ForConditionalGeneration(config)), gain=2.0)
    tokenizer = word_tokenizer(
        special,
        size,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={
            "image_token": "<image>",
            "boi_token": "<|image start|>",
            "eoi_token": "<|image end|>",
            "image_wrapper_token": "<|image token|>",
            "eof_token": "<|extra_201|>",
        },
    )
    pipe = SJDEmu3Pipeline(model, tokenizer, AutoregressiveScheduler(), image_area=(2 ** (levels - 1) * side) ** 2)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def chameleon_words(codes: int) -> dict[str, int]:
    names = [f"IMGIMG{''.join('ABCDEFGHIJ'[int(digit)] for digit in str(code))}Z" for code in range(codes)]
    order = [(5 * code + 3) % codes for code in range(codes)]  # not an offset, as in the published models
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    words |= {name: 4 + place for name, place in zip(names, order)}
    special = ["<eoss>", "<racm3:break>", "<reserved08706>", "<image>", "<reserved08799>"]
    special += [f"<reserved{8800 + side:05d}>" for side in range(1, 9)]
    return words | {name: 4 + codes + index for index, name in enumerate(special)}


def chameleon_pipeline(
    recipe: str, resolution: int = 64, codes: int = 16, words: dict[str, int] | None = None, size: int = 64
) -> SJDChameleonPipeline:
    words = chameleon_words(codes) if words is None else words
    config = ChameleonConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        vocabulary_map=words,
        vq_config={
            "embed_dim": 8,
            "num_embeddings": codes,
            "latent_channels": 8,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1, 1],
            "num_res_blocks": 1,
        },
    )
    model = randomise(build(lambda: ChameleonForConditionalGeneration(config)), gain=2.0)
    named = {name: token for name, token in words.items() if name != "<unk>"}
    tokenizer = word_tokenizer(named, size, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    vq = randomise(build(lambda: vq_model(5, codes)))
    pipe = SJDChameleonPipeline(model, vq, tokenizer, AutoregressiveScheduler(), recipe, resolution)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def families():
    """The builders, for tests that need a model of their own."""
    return {"llamagen": llamagen_pipeline, "emu3": emu3_pipeline, "chameleon": chameleon_pipeline}


@pytest.fixture(scope="session")
def captions():
    return llamagen_pipeline()


@pytest.fixture(scope="session")
def classes():
    return llamagen_pipeline(classes=5)


@pytest.fixture(scope="session")
def emu3():
    return emu3_pipeline()


@pytest.fixture(scope="session")
def anole():
    return chameleon_pipeline("anole")


@pytest.fixture(scope="session")
def lumina():
    return chameleon_pipeline("lumina-mgpt")
