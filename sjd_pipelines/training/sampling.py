"""Plain next-token sampling in batches, to look at a model while it trains; the pipelines are the real thing."""

from __future__ import annotations

from collections import defaultdict

import torch
from transformers import DynamicCache, JanusForConditionalGeneration

from .architecture import unconditional_prompt
from .captions import encode_caption
from .glyphs import GRID


@torch.no_grad()
def sample_tokens(
    model: JanusForConditionalGeneration,
    prompt: torch.Tensor,
    guidance_scale: float,
    temperature: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw image tokens one after the other, with guidance.

    Args:
        prompt: `[B, P]` int64, rows of one length without padding.

    Returns:
        `[B, 256]` int64.
    """
    prompt = torch.cat([prompt, unconditional_prompt(prompt)])  # [2 B, P]
    inputs, cache, tokens = model.get_input_embeddings()(prompt), DynamicCache(), []
    for _ in range(GRID * GRID):
        output = model.model.language_model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
        conditional, unconditional = model.model.generation_head(output.last_hidden_state[:, -1]).float().chunk(2)
        logits = unconditional + guidance_scale * (conditional - unconditional)
        tokens.append(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator))
        inputs = model.prepare_embeddings_for_image_generation(tokens[-1].repeat(2, 1))
    return torch.cat(tokens, dim=1)


@torch.no_grad()
def sample_pictures(
    model: JanusForConditionalGeneration,
    captions: list[str],
    guidance_scale: float = 3.0,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures `[N, 3, 128, 128]` in [0, 1] and their tokens `[N, 256]`, in the order of the captions."""
    generator = torch.Generator().manual_seed(seed)
    groups: dict[int, list[int]] = defaultdict(list)
    prompts = [encode_caption(text) for text in captions]
    for index, prompt in enumerate(prompts):
        groups[len(prompt)].append(index)
    tokens = torch.zeros(len(captions), GRID * GRID, dtype=torch.int64)
    for group in groups.values():
        for rows in torch.tensor(group).split(batch_size):
            prompt = torch.tensor([prompts[row] for row in rows])
            tokens[rows] = sample_tokens(model, prompt, guidance_scale, temperature, generator)
    pictures = torch.cat([model.model.vqmodel.decode(part) for part in tokens.split(batch_size)])
    return (pictures.float() / 2 + 0.5).clamp(0, 1), tokens
