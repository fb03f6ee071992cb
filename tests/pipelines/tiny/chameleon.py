"""Tiny Chameleons, with the recipe of Anole and of Lumina-mGPT."""

from functools import partial

from transformers import ChameleonConfig, ChameleonForConditionalGeneration

from sjd_pipelines import AutoregressiveScheduler, SJDChameleonPipeline

from .parts import Member, build, randomise, vq_model, word_tokenizer


def chameleon_words(codes: int) -> dict[str, int]:
    names = [f"IMGIMG{''.join('ABCDEFGHIJ'[int(digit)] for digit in str(code))}Z" for code in range(codes)]
    order = [(5 * code + 3) % codes for code in range(codes)]  # not an offset, as in the published models
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    words |= {name: 4 + place for name, place in zip(names, order)}
    special = ["<eoss>", "<racm3:break>", "<reserved08706>", "<image>", "<reserved08799>"]
    special += [f"<reserved{8800 + side:05d}>" for side in range(1, 9)]
    return words | {name: 4 + codes + index for index, name in enumerate(special)}


def chameleon_pipeline(
    recipe: str,
    resolution: int = 64,
    codes: int = 16,
    words: dict[str, int] | None = None,
    size: int = 64,
    channels: int = 32,
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
    vq = randomise(build(lambda: vq_model(5, codes, channels)))
    pipe = SJDChameleonPipeline(model, vq, tokenizer, AutoregressiveScheduler(), recipe, resolution)
    pipe.set_progress_bar_config(disable=True)
    return pipe


MEMBERS = {
    name: Member(partial(chameleon_pipeline, recipe), partial(chameleon_pipeline, recipe, resolution=32, codes=4))
    for name, recipe in (("anole", "anole"), ("lumina", "lumina-mgpt"))
}
