"""The Emu3 family against transformers' own generation, and its published full size."""

import pytest
import torch
from transformers import Emu3Config, Emu3ForConditionalGeneration

from sjd_pipelines import JacobiScheduler, SJDAutoRegressivePipeline, SJDEmu3Pipeline
from sjd_pipelines.pipelines.emu3 import NEGATIVE_PROMPT, POSITIVE_SUFFIX
from sjd_pipelines.pipelines.grouped_attention import NAME

PROMPTS = ["a red dog", "two blue cat on a red house"]


def library_inputs(pipe, texts, rows, columns):
    header = f"<|image start|>{rows}*{columns}<|image token|>"
    texts = [f"<s>{text}{header}" for text in texts]
    return pipe.tokenizer(texts, padding=True, return_tensors="pt").to(pipe.device)


def library_greedy(pipe, prompts, rows, columns, guidance_scale=None, negative_prompts=None):
    """`generate` with a prefix function that leaves image tokens, row ends and the end tokens where they belong."""
    words = pipe.model.config.vocabulary_map
    visual = [token for name, token in words.items() if name.startswith("<|visual token")]
    tail = [words["<|extra_201|>"], words["<|image end|>"], pipe.tokenizer.eos_token_id]
    inputs = library_inputs(pipe, [prompt + POSITIVE_SUFFIX for prompt in prompts], rows, columns)
    length = inputs.input_ids.shape[1]

    def allowed(_, ids):
        position = len(ids) - length
        if position >= rows * (columns + 1):
            return [tail[position - rows * (columns + 1)]]
        return [words["<|extra_200|>"]] if position % (columns + 1) == columns else visual

    guidance = {}
    if guidance_scale is not None:
        negative = library_inputs(pipe, negative_prompts or [NEGATIVE_PROMPT] * len(prompts), rows, columns)
        guidance = {
            "guidance_scale": guidance_scale,
            "negative_prompt_ids": negative.input_ids,
            "negative_prompt_attention_mask": negative.attention_mask,
        }
    tokens = pipe.model.generate(
        inputs.input_ids,
        attention_mask=inputs.attention_mask,
        prefix_allowed_tokens_fn=allowed,
        max_new_tokens=rows * (columns + 1) + len(tail),
        do_sample=False,
        **guidance,
    )
    return tokens[:, length:]


@pytest.mark.parametrize("guidance_scale", [None, 3.0])
def test_greedy_tokens_equal_the_library(emu3, guidance_scale):
    rows, columns = 3, 4
    expected = library_greedy(emu3, PROMPTS, rows, columns, guidance_scale)
    sampling = {"height": 2 * rows, "width": 2 * columns, "guidance_scale": guidance_scale or 1.0}
    sequential = emu3(PROMPTS, temperature=0, output_type="latent", **sampling).tokens
    assert torch.equal(sequential, grid(emu3, expected, rows, columns))
    before, emu3.scheduler = emu3.scheduler, JacobiScheduler(window=6)
    assert torch.equal(emu3(PROMPTS, output_type="latent", **sampling).tokens, sequential)
    emu3.scheduler = before


def test_own_negative_prompts_equal_the_library(emu3):
    negatives = ["a blue car", "house"]
    expected = library_greedy(emu3, PROMPTS, 3, 3, 2.5, negatives)
    tokens = emu3(PROMPTS, negatives, temperature=0, guidance_scale=2.5, output_type="latent").tokens
    assert torch.equal(tokens, grid(emu3, expected, 3, 3))


@torch.no_grad()
def test_grouped_queries_attend_as_in_the_library(emu3):
    """Rows of other lengths, and slots that nothing sees but themselves."""
    network = emu3.model.model.text_model
    assert network.config._attn_implementation == NAME
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(2, 7, network.config.hidden_size, generator=generator).to(emu3.device)
    visible = torch.rand(2, 1, 7, 7, generator=generator).to(emu3.device) < 0.5
    visible |= torch.eye(7, dtype=torch.bool, device=emu3.device)
    bias = torch.zeros(visible.shape, device=emu3.device).masked_fill_(~visible, -torch.inf)
    states = {}
    try:
        for name in ("sdpa", "eager", NAME):
            network.set_attn_implementation(name)
            states[name] = [network(inputs_embeds=embeds, attention_mask=mask)[0] for mask in (bias, None)]
    finally:
        network.set_attn_implementation(NAME)
    for name in ("sdpa", "eager"):
        for mine, theirs in zip(states[NAME], states[name]):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def grid(pipe, sequence, rows, columns):
    """Vocabulary ids after the prompt -> codebook ids."""
    first = pipe.model.config.vocabulary_map["<|visual token 000000|>"]
    return sequence[:, :-3].view(-1, rows, columns + 1)[:, :, :-1].flatten(1) - first


def test_pixels_are_the_models_own(emu3):
    output = emu3(PROMPTS, generator=torch.Generator().manual_seed(0), output_type="pt")
    words = emu3.model.config.vocabulary_map
    rows = output.tokens.view(2, 3, 3) + words["<|visual token 000000|>"]
    ends = torch.full_like(rows[..., :1], words["<|extra_200|>"])
    sequence = torch.cat([torch.cat([rows, ends], -1).flatten(1), torch.zeros_like(rows[:, 0])], 1)
    pixels = emu3.model.decode_image_tokens(image_tokens=sequence, height=3, width=3)
    assert torch.allclose(output.images, (pixels / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_sizes(emu3):
    assert emu3.image_size() == (6, 6)
    wide = emu3(PROMPTS[0], height=4, width=8, output_type="np")
    assert wide.images.shape == (1, 4, 8, 3)
    for height, width in [(5, 8), (0, 8)]:
        with pytest.raises(ValueError, match="must be multiples of 2"):
            emu3.image_layout(height, width)
    with pytest.raises(ValueError, match="this model's context is 512"):
        emu3.image_layout(64, 64)
    with pytest.raises(ValueError, match="ratio must be width:height"):
        emu3.image_size("wide")


def test_pictures_as_input_are_refused(emu3):
    with pytest.raises(ValueError, match="pictures as input are out of scope"):
        emu3("<image> what is this")


def test_transformers_folder(emu3, tmp_path):
    emu3.model.save_pretrained(tmp_path, max_shard_size="100KB")
    emu3.tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = SJDAutoRegressivePipeline.from_pretrained(tmp_path, image_area=36)
    loaded.to(emu3.device).set_progress_bar_config(disable=True)
    assert isinstance(loaded, SJDEmu3Pipeline)
    expected = emu3(PROMPTS, temperature=0, output_type="np")
    output = loaded(PROMPTS, temperature=0, output_type="np")
    assert torch.equal(output.tokens, expected.tokens)
    assert (output.images == expected.images).all()


def test_full_size_geometry_on_the_meta_device():
    words = {f"<|visual token {code:06d}|>": 151854 + code for code in range(32768)}
    words |= {"<|extra_200|>": 151846, "<|extra_201|>": 151847, "<|image end|>": 151853, "<image>": 151851}
    with torch.device("meta"):
        model = Emu3ForConditionalGeneration(Emu3Config(vocabulary_map=words))
        pipe = SJDEmu3Pipeline(model, None, JacobiScheduler())
        layout = pipe.image_layout(None, None)
        hidden = torch.zeros(2, 3, 4096)
        assert pipe.image_logits(hidden).shape == (2, 3, 32768 + 4)
    assert (layout.rows, layout.width, layout.num_tokens) == (90, 91, 90 * 91 + 3)
    assert sum(parameter.numel() for parameter in model.model.text_model.parameters()) > 7e9
    assert pipe.image_size("16:9") == (544, 960)
    assert pipe.sampling_defaults() == {"guidance_scale": 3.0, "temperature": 1.0, "top_k": 2048, "top_p": 1.0}
