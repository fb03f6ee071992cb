"""The example of action tokens, on a tiny random model that reads a picture and words as OpenVLA does."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

FILE = Path(__file__).with_name("action_tokens.py")
LENGTH, BINS, PICTURE, VOCABULARY = 7, 16, 31, 64


def _load():
    spec = importlib.util.spec_from_file_location("action_tokens", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


example = _load()
ACTIONS = example.ActionVocabulary(VOCABULARY, bins=BINS)


@pytest.fixture(scope="module")
def model():
    config = LlavaConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "eos_token_id": VOCABULARY - 1,  # an action token too: nothing may end at it
            "pad_token_id": 0,
        },
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        },
        image_token_index=PICTURE,
        image_seq_length=4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # sharp laws that depend on what is before them
                parameter.normal_(generator=generator).mul_(2 * parameter[0].numel() ** -0.5)
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture
def inputs():
    """Two prompts of different lengths, padded on the left, with a picture each."""
    ids = torch.tensor([[PICTURE] * 4 + [5, 9, 20, 7, 11], [0, 0] + [PICTURE] * 4 + [6, 12, 11]])
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "pixel_values": pixels}


def sequential(model, inputs):
    """What the library's own greedy generation gives among action tokens: `[B, LENGTH]`."""
    length = inputs["input_ids"].shape[1]
    allowed = list(range(ACTIONS.first, VOCABULARY))
    made = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=LENGTH,
        prefix_allowed_tokens_fn=lambda *_: allowed,
    )
    return made[:, length:]


def iterated(model, inputs, tokens, times):
    """Jacobi iterations of the whole chunk, each by a pass over prompt and chunk without a cache."""
    length = inputs["input_ids"].shape[1]
    for _ in range(times):
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(tokens)], 1)
        logits = model(
            input_ids=torch.cat([inputs["input_ids"], tokens], 1),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            pixel_values=inputs["pixel_values"],
        ).logits[:, length - 1 : -1, ACTIONS.first :]
        tokens = logits.argmax(-1) + ACTIONS.first
    return tokens


def test_the_fixed_point_is_greedy_generation(model, inputs):
    expected = sequential(model, inputs)
    chunk = example.decode_chunk(model, ACTIONS, LENGTH, **inputs)
    assert torch.equal(chunk.tokens, expected)
    assert chunk.converged.all()
    assert 1 < chunk.passes <= LENGTH - 1
    assert len(expected.unique()) > 3
    one = {name: value[1:] for name, value in inputs.items()}
    assert torch.equal(example.decode_chunk(model, ACTIONS, LENGTH, **one).tokens, expected[1:])


@pytest.mark.parametrize("exit_after", range(LENGTH))
@torch.no_grad()
def test_an_early_exit_gives_the_state_after_so_many_iterations(model, inputs, exit_after):
    drafts = torch.randint(ACTIONS.first, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(5))
    chunk = example.decode_chunk(model, ACTIONS, LENGTH, exit_after=exit_after, drafts=drafts, **inputs)
    start = drafts.clone()
    start[:, 0] = sequential(model, inputs)[:, 0]  # the pass over the prompt has chosen it
    assert torch.equal(chunk.tokens, iterated(model, inputs, start, exit_after))
    assert chunk.passes <= exit_after
    assert torch.equal(chunk.converged, (chunk.tokens == sequential(model, inputs)).all(1) & chunk.converged)
    assert chunk.converged.all() or exit_after < LENGTH - 1


def test_right_guesses_take_one_pass_and_the_caller_keeps_his(model, inputs):
    right = sequential(model, inputs)
    guesses = right.clone()
    chunk = example.decode_chunk(model, ACTIONS, LENGTH, drafts=guesses, **inputs)
    assert chunk.passes == 1
    assert torch.equal(chunk.tokens, right)
    guesses[:, 0] = ACTIONS.first
    before = guesses.clone()
    example.decode_chunk(model, ACTIONS, LENGTH, drafts=guesses, **inputs)
    assert torch.equal(guesses, before)
    assert example.moved_on(torch.arange(6)[None], 2).tolist() == [[2, 3, 4, 5, 4, 5]]


def test_motions_and_tokens_are_inverse():
    actions = example.ActionVocabulary(VOCABULARY, bins=BINS, low=[-1.0, 0.0], high=[1.0, 10.0])
    motions = torch.tensor([[-1.0, 0.0, 1.0, 10.0], [0.3, 7.7, -9.0, 99.0]])
    tokens = actions.tokens(motions)
    assert tokens[0].tolist() == [VOCABULARY - 1, VOCABULARY - 1, VOCABULARY - BINS, VOCABULARY - BINS]
    assert torch.equal(actions.tokens(actions.motions(tokens)), tokens)
    halves = torch.tensor([1.0, 5.0]) / BINS
    assert ((actions.motions(tokens) - motions.clamp(-1, 10))[1, :2].abs() <= halves).all()
    with pytest.raises(ValueError, match="are no whole number of steps of 2 joints"):
        actions.motions(tokens[:, :3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be at least 1"),
        ({"length": 3, "exit_after": -1}, "exit_after at least 0, got 3 and -1"),
        ({"length": 3, "drafts": torch.zeros(2, 4, dtype=torch.int64)}, r"the shape \(2, 3\), got \(2, 4\)"),
    ],
)
def test_bad_input_is_refused(model, inputs, options, message):
    with pytest.raises(ValueError, match=message):
        example.decode_chunk(model, ACTIONS, **options, **inputs)


@pytest.mark.parametrize("bins", [0, 321])
def test_bins_that_no_vocabulary_has_are_refused(bins):
    with pytest.raises(ValueError, match="bins must be from 1 to 320, the vocabulary's size"):
        example.ActionVocabulary(320, bins)
