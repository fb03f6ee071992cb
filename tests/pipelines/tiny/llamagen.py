"""Tiny LlamaGens, of captions and of classes."""

from transformers import T5Config, T5EncoderModel

from sjd_pipelines import AutoregressiveScheduler, LlamaGenTransformer, SJDLlamaGenPipeline

from .parts import Member, build, randomise, vq_model, word_tokenizer


def llamagen_pipeline(
    classes: int | None = None, side: int = 4, codes: int = 16, slots: int = 8, levels: int = 2, channels: int = 32
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
        vq_model=randomise(build(lambda: vq_model(levels, codes, channels))),
        scheduler=AutoregressiveScheduler(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


MEMBERS = {
    "captions": Member(llamagen_pipeline, lambda: llamagen_pipeline(side=2, codes=4)),
    "classes": Member(
        lambda: llamagen_pipeline(classes=5), lambda: llamagen_pipeline(classes=5, side=2, codes=4), (1, 4, 0)
    ),
}
