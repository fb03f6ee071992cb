"""A tiny Emu3."""

from transformers import Emu3Config, Emu3ForConditionalGeneration

from sjd_pipelines import AutoregressiveScheduler, SJDEmu3Pipeline

from .parts import Member, build, randomise, word_tokenizer


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


MEMBERS = {"emu3": Member(emu3_pipeline, lambda: emu3_pipeline(side=2, codes=4))}
