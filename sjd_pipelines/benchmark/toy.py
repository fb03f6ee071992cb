"""Random models small enough to enumerate every image they can draw: a Janus, and a PAR."""

from collections.abc import Sequence

import torch
from diffusers import VQModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import JanusConfig, JanusForConditionalGeneration, JanusProcessor, PreTrainedTokenizerFast

from ..companions import COMPANIONS
from ..decoding import ImageTokenLayout
from ..models import LlamaGenTransformer
from ..pipelines import SJDJanusPipeline, SJDLlamaGenPipeline
from ..schedulers import AutoregressiveScheduler, DecodingScheduler, ParallelGroupsScheduler

try:  # later transformers: one class per backend; the other one needs torchvision
    from transformers import JanusImageProcessorPil as JanusImageProcessor
except ImportError:
    from transformers import JanusImageProcessor

WORDS = ["a", "red", "green", "blue", "dog", "cat", "car", "house", "on", "left", "right", "of", "two", "three"]
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<boi>", "<eoi>", "<unk>", "<user>", "<assistant>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<s> <user> {% for part in message['content'] %}{{ part['text'] }}{% endfor %}"
    "{% endfor %} <assistant> "
)


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with Janus' special tokens."""
    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"},
    )


def toy_config(side: int, codebook_size: int, hidden_size: int = 32, layers: int = 2) -> JanusConfig:
    """A Janus of `side` x `side` image tokens; grouped queries, as in many published models."""
    patch = 2
    return JanusConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(SPECIAL) + len(WORDS),
            "hidden_size": hidden_size,
            "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": side * patch,
            "patch_size": patch,
            "projection_dim": hidden_size,
            "num_image_tokens": side * side,
        },
        vq_config={
            "embed_dim": 8,
            "num_embeddings": codebook_size,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "num_patches": side,
            "projection_dim": hidden_size,
            "image_token_embed_dim": hidden_size,
        },
        image_token_id=3,
    )


def randomise(parameter: torch.Tensor, generator: torch.Generator) -> None:
    """Unit gain for matrices and kernels, in place; vectors stay as they are."""
    if parameter.ndim > 1:
        parameter.normal_(generator=generator).mul_(parameter[0].numel() ** -0.5)


def toy_pipeline(
    side: int = 2,
    codebook_size: int = 4,
    seed: int = 0,
    logit_scale: float = 1.0,
    scheduler: DecodingScheduler | None = None,
    **config: int,
) -> SJDJanusPipeline:
    """Random weights from `seed`, companions included; logits deviate by about `logit_scale`.

    Args:
        side: rows and columns of the token grid.
        codebook_size: V.
        seed: of the weights.
        logit_scale: larger is more certain.
        scheduler: default sequential.
        **config: `hidden_size` and `layers` of the language model.
    """
    with torch.random.fork_rng(devices=[]):  # modules initialise from the global generator
        torch.manual_seed(seed)
        model = JanusForConditionalGeneration(toy_config(side, codebook_size, **config)).eval()
        width = model.config.text_config.hidden_size
        companions = {name: kind.small(width, codebook_size).eval() for name, kind in COMPANIONS.items()}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            randomise(parameter, generator)
        # Embeddings are looked up, not summed over: unit variance keeps tokens apart.
        for embedding in (model.get_input_embeddings(), model.model.generation_embeddings):
            embedding.weight.normal_(generator=generator)
        head = model.model.generation_head.vision_head.weight
        head.mul_(2.5 * logit_scale)  # GELU in front of the head shrinks its input
        for network in companions.values():
            for parameter in network.parameters():
                randomise(parameter, generator)
    return janus_pipeline(model, scheduler or AutoregressiveScheduler(), **companions)


def janus_pipeline(
    model: JanusForConditionalGeneration, scheduler: DecodingScheduler, **companions: torch.nn.Module
) -> SJDJanusPipeline:
    """A pipeline around a model that knows the words of `toy_tokenizer`."""
    tokenizer = toy_tokenizer()
    generation = model.generation_config
    generation.pad_token_id = tokenizer.pad_token_id
    generation.bos_token_id = tokenizer.bos_token_id
    generation.eos_token_id = tokenizer.eos_token_id
    generation.generation_kwargs = {"boi_token_id": tokenizer.convert_tokens_to_ids("<boi>")}
    generation._from_model_config = False  # else loading a saved toy derives it anew and drops the line above
    processor = JanusProcessor(JanusImageProcessor(), tokenizer, chat_template=CHAT_TEMPLATE)
    return SJDJanusPipeline(model, processor, scheduler, **companions)


class ToyPARPipeline(SJDLlamaGenPipeline):
    """Draws the upper rows of its grid only: a few tokens, so that its pictures are few, in more than one group."""

    rows: int

    def image_layout(self, height: int | None, width: int | None) -> ImageTokenLayout:
        whole = super().image_layout(height, width)
        return ImageTokenLayout.in_regions(self.rows, whole.columns, whole.codebook_size, whole.parallel)


def toy_par_pipeline(
    side: int,
    codebook_size: int = 4,
    parallel: int = 4,
    seed: int = 0,
    logit_scale: float = 1.0,
    names: Sequence[str] = WORDS,
    rows: int | None = None,
) -> SJDLlamaGenPipeline:
    """Random weights from `seed`; logits deviate by about `logit_scale`.

    Args:
        side: rows and columns of the token grid.
        codebook_size: V.
        parallel: tokens that are made at once.
        seed: of the weights.
        logit_scale: larger is more certain.
        names: of the classes.
        rows: that are drawn; None is all.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = LlamaGenTransformer(
            num_layers=2,
            num_attention_heads=2,
            hidden_size=32,
            intermediate_size=64,
            codebook_size=codebook_size,
            sample_size=side,
            caption_channels=None,
            num_classes=len(names),
            parallel_tokens=parallel,
        )
        vq_model = VQModel(
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            block_out_channels=(32, 32),
            layers_per_block=1,
            latent_channels=32,
            num_vq_embeddings=codebook_size,
            vq_embed_dim=8,
            lookup_from_codebook=True,
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            randomise(parameter, generator)
            if "embedding" in name:
                parameter.normal_(generator=generator)
        transformer.head.weight.mul_(logit_scale)
    cls = SJDLlamaGenPipeline if rows is None else ToyPARPipeline
    pipe = cls(transformer.eval(), vq_model.eval(), ParallelGroupsScheduler(), id2label=dict(enumerate(names)))
    if rows is not None:
        pipe.rows = rows
    return pipe
