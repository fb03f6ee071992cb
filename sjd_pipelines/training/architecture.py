"""The network: a Janus in miniature, built from the unmodified transformers classes."""

from __future__ import annotations

import math

import torch
from transformers import JanusConfig, JanusForConditionalGeneration

from ..emoji.captions import BOI, BOS, EOS, IMAGE, PAD, VOCABULARY
from ..emoji.codes import CODEBOOK, initial_codebook
from ..emoji.glyphs import CELL, GRID

HIDDEN, LAYERS, HEADS, FEED_FORWARD = 256, 6, 8, 768
CODE_DIMENSION = 32


def row_rope_theta(head_dimension: int, index: int = 2) -> float:
    """The RoPE base for which frequency `index` turns once per image row.

    Llama numbers positions along the raster only; one frequency with the period of a row lets a head see columns.
    """
    return (2 * math.pi / GRID) ** (-head_dimension / (2 * index))


def build_config(hidden: int = HIDDEN, layers: int = LAYERS, heads: int = HEADS, feed_forward: int = FEED_FORWARD):
    """The `JanusConfig` of the checkpoint; sizes are arguments so that tests can shrink them."""
    return JanusConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(VOCABULARY),
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "intermediate_size": feed_forward,
            "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": row_rope_theta(hidden // heads)},
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "tie_word_embeddings": True,
        },
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": GRID * CELL,
            "patch_size": CELL,
            "projection_dim": hidden,
            "num_image_tokens": GRID * GRID,
        },
        vq_config={
            "embed_dim": CODE_DIMENSION,
            "num_embeddings": CODEBOOK,
            "latent_channels": CODE_DIMENSION,
            # Janus normalises in 32 groups: with 32 channels a group is one channel, and its mean, the colour of a
            # plain area, would be lost. So no level has fewer than 64.
            "base_channels": 64,
            "channel_multiplier": [1, 1, 1, 2],
            "num_res_blocks": 1,
            "initializer_range": 0.04,
            "projection_dim": hidden,
            "image_token_embed_dim": hidden,
        },
        image_token_id=IMAGE,
        tie_word_embeddings=True,
    )


def build_model(config: JanusConfig, seed: int = 0) -> JanusForConditionalGeneration:
    """A model with random weights, drawn without touching the caller's random state, and a meaningful codebook."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JanusForConditionalGeneration(config)
    codebook = model.model.vqmodel.quantize.embedding.weight
    codebook.data.copy_(torch.from_numpy(initial_codebook(codebook.shape[1])))
    model.generation_config.pad_token_id = PAD
    model.generation_config.bos_token_id = BOS
    model.generation_config.eos_token_id = EOS
    model.generation_config.generation_kwargs = {"boi_token_id": BOI}
    return model


def unconditional_prompt(prompt: torch.Tensor) -> torch.Tensor:
    """The unconditional row Janus builds for guidance: all but BOS and BOI becomes padding, which stays attended."""
    keep = (prompt == BOS) | (prompt == BOI)
    return torch.where(keep, prompt, PAD)


def hidden_states(
    model: JanusForConditionalGeneration, prompt: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Teacher-forced states along the model's own generation path.

    Args:
        prompt: `[B, P]` int64 ids ending in BOI, all rows of one length (no padding mask).
        tokens: `[B, N]` int64 codebook ids.

    Returns:
        `[B, P + N - 1, D]` each: what goes in, then the states behind every layer, the last ones normalised.
    """
    words = model.get_input_embeddings()(prompt)
    pictures = model.prepare_embeddings_for_image_generation(tokens[:, :-1])
    inputs = torch.cat([words, pictures.to(words.dtype)], dim=1)  # [B, P + N - 1, D]
    return model.model.language_model(inputs_embeds=inputs, use_cache=False, output_hidden_states=True).hidden_states


def image_logits(model: JanusForConditionalGeneration, prompt: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Teacher-forced codebook logits for every image token, see `hidden_states`.

    Returns:
        `[B, N, codebook]`; entry n is the law of token n given the prompt and the tokens before it.
    """
    return model.model.generation_head(hidden_states(model, prompt, tokens)[-1][:, prompt.shape[1] - 1 :])
