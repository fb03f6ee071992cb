"""The Janus family against transformers' own generation."""

import pytest
import torch

from sjd_pipelines import JacobiScheduler

PROMPTS = ["a red dog", "two blue cat on a red house", "car"]


def library_greedy(pipe, prompts, guidance_scale):
    texts = [pipe.format_prompt(prompt) for prompt in prompts]
    inputs = pipe.processor(text=texts, generation_mode="image", padding=True, return_tensors="pt").to(pipe.device)
    return pipe.model.generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        generation_mode="image",
        guidance_scale=guidance_scale,
        do_sample=False,
    )


@pytest.mark.parametrize("guidance_scale", [1.5, 5.0])
def test_greedy_tokens_equal_the_library(pipe, guidance_scale):
    expected = library_greedy(pipe, PROMPTS, guidance_scale)
    sequential = pipe(PROMPTS, temperature=0, guidance_scale=guidance_scale, output_type="latent").tokens
    assert torch.equal(sequential, expected)
    pipe.scheduler = JacobiScheduler(window=7)
    assert torch.equal(pipe(PROMPTS, guidance_scale=guidance_scale, output_type="latent").tokens, expected)


def test_unguided_greedy_tokens_equal_an_uncached_loop(pipe):
    # The library's own generate cannot run at guidance 1.
    tokens = pipe(PROMPTS[0], temperature=0, guidance_scale=1.0, output_type="latent").tokens
    text = [pipe.format_prompt(PROMPTS[0])]
    ids = pipe.processor(text=text, generation_mode="image", return_tensors="pt")["input_ids"].to(pipe.device)
    embeds = pipe.model.get_input_embeddings()(ids)
    expected = []
    with torch.no_grad():
        for _ in range(16):
            hidden = pipe.model.model.language_model(inputs_embeds=embeds).last_hidden_state[:, -1]
            token = pipe.model.model.generation_head(hidden).argmax(-1)
            expected.append(token.item())
            embeds = torch.cat([embeds, pipe.model.prepare_embeddings_for_image_generation(token[:, None])], 1)
    assert tokens.tolist() == [expected]


def test_pixels_are_the_models_own(pipe, device):
    output = pipe(PROMPTS[:2], generator=torch.Generator().manual_seed(0), output_type="pt")
    with torch.no_grad():
        pixels = pipe.model.decode_image_tokens(output.tokens)  # [B, H, W, 3] in [-1, 1]
    expected = (pixels.permute(0, 3, 1, 2) / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(output.images, expected, atol=1e-6 if device.type == "cpu" else 1e-5)


def test_defaults_are_the_official_recipe(pipe):
    assert pipe.sampling_defaults() == {"guidance_scale": 5.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def test_unconditional_rows_keep_the_frame_and_attend_the_pads(pipe):
    encoded = pipe.encode_prompt(PROMPTS[:2], None, True, 1)
    conditional, unconditional = encoded.visible.chunk(2)
    assert torch.equal(conditional, unconditional)
    ids = pipe.processor(
        text=[pipe.format_prompt(prompt) for prompt in PROMPTS[:2]],
        generation_mode="image",
        padding=True,
        return_tensors="pt",
    )["input_ids"].to(pipe.device)
    embeddings = pipe.model.get_input_embeddings().weight
    pad = embeddings[pipe.processor.tokenizer.pad_token_id]
    frame = (ids == pipe.processor.tokenizer.bos_token_id) | (ids == ids[:, -1:])
    assert torch.equal(encoded.embeds[2:][~frame], pad.expand(int((~frame).sum()), -1))
    assert torch.equal(encoded.embeds[2:][frame], embeddings[ids][frame])


def test_negative_prompt_takes_the_unconditional_rows(pipe):
    common = {"temperature": 0, "output_type": "latent", "guidance_scale": 4.0}
    plain = pipe("a red dog", **common).tokens
    negative = pipe("a red dog", negative_prompt="two blue house", **common).tokens
    per_prompt = pipe(["a red dog", "car"], negative_prompt=["two blue house", "cat"], **common).tokens
    assert not torch.equal(plain, negative)
    assert torch.equal(per_prompt[:1], negative)
    # The prompt against itself is no guidance at all.
    assert torch.equal(
        pipe("a red dog", negative_prompt="a red dog", **common).tokens,
        pipe("a red dog", **common | {"guidance_scale": 1.0}).tokens,
    )


def test_pictures_and_conversations_as_input_are_refused(pipe):
    with pytest.raises(ValueError, match="<image> in a prompt: pictures as input are out of scope"):
        pipe(["a red dog", "<image> in blue"])
    for conversation in ([{"role": "user", "content": "a red dog"}], [["a red dog", "now in blue"]]):
        with pytest.raises(ValueError, match="pictures and conversations as input are out of scope"):
            pipe(conversation)
