"""A second baseline: the model library's own image generation, on the same weights and prompts."""

import torch

from ..pipelines import SJDAutoRegressivePipeline, SJDJanusPipeline


def check_library(pipe: SJDAutoRegressivePipeline, guidance_scale: float) -> None:
    """Raise `ValueError` unless the library can draw with this model and guidance."""
    if not isinstance(pipe, SJDJanusPipeline):
        raise ValueError(f"The library baseline is for SJDJanusPipeline only, not for {type(pipe).__name__}.")
    if guidance_scale <= 1:
        raise ValueError(f"The library draws with guidance above 1 only, got guidance_scale {guidance_scale}.")
    if "boi_token_id" not in getattr(pipe.model.generation_config, "generation_kwargs", {}):
        raise ValueError("The library needs generation_kwargs.boi_token_id in the model's generation_config.json.")


@torch.no_grad()
def library_tokens(
    pipe: SJDJanusPipeline,
    prompts: list[str],
    seed: int,
    guidance_scale: float,
    temperature: float,
    top_k: int,
    top_p: float,
) -> torch.Tensor:
    """transformers' `generate(generation_mode="image")`, one picture per prompt.

    Args:
        pipe: lends model and processor.
        prompts: B texts.
        seed: of the batch; the library draws from the global generator, whose state is put back.
        guidance_scale: above 1.
        temperature: 0 is greedy.
        top_k: 0 is all.
        top_p: 1 is all.

    Returns:
        `[B, rows * columns]` int64 codebook ids.
    """
    texts = [pipe.format_prompt(prompt) for prompt in prompts]
    inputs = pipe.processor(text=texts, generation_mode="image", padding=True, return_tensors="pt").to(pipe.device)
    sampling = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": float(temperature), "top_k": top_k, "top_p": float(top_p)}
    with torch.random.fork_rng(devices=[pipe.device] if pipe.device.type == "cuda" else []):
        torch.manual_seed(seed)
        return pipe.model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            generation_mode="image",
            guidance_scale=guidance_scale,
            **sampling,
        )
