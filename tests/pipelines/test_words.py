"""Words that a model does not know, by every kind of tokenizer, and prompts that are too long."""

import logging

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sjd_pipelines import SJDAutoRegressivePipeline
from sjd_pipelines.pipelines import captions as caption_cleaning
from sjd_pipelines.pipelines.words import LISTED, MOST_NAMED, cut_remarks, unknown_remarks, unknown_words, word_list

LATENT = {"output_type": "latent"}


@pytest.fixture(scope="module")
def bundled():
    pipe = SJDAutoRegressivePipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def byte_level_tokenizer(special: dict[str, int], size: int, **names) -> PreTrainedTokenizerFast:
    """As those of Janus-Pro and Emu3: bytes are its last resort, and its unknown token is never used."""
    free = (token for token in range(size) if token not in special.values())
    vocabulary = special | {sign: next(free) for sign in ["<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([name for name in special if name.startswith("<")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **names)


@pytest.fixture(scope="module")
def byte_level():
    return byte_level_tokenizer({}, 257)


@pytest.fixture(scope="module")
def byte_level_emu3(families):
    pipe = families["emu3"](size=400)
    words = {name: pipe.tokenizer.convert_tokens_to_ids(name) for name in pipe.tokenizer.get_vocab()}
    special = {name: token for name, token in words.items() if name.startswith("<") and name != "<unk>"}
    names = ("pad_token", "bos_token", "eos_token")
    extra = {name: getattr(pipe.tokenizer, name) for name in ("image_token", "boi_token", "image_wrapper_token")}
    given = {name: getattr(pipe.tokenizer, name) for name in names} | {"extra_special_tokens": extra}
    pipe.tokenizer = byte_level_tokenizer(special, 400, **given)
    return pipe


@pytest.fixture(scope="module")
def sentence_piece():
    """As T5's: parts of words in small letters, and a sign that is not among them is unknown."""
    signs = ["<unk>", "</s>", "▁", "▁dog", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram([(sign, -1.0) for sign in signs], 0, False))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("three yellow lemons", "'lemons'" + LISTED),
        ("Two red aples on a yelow bakground", "'aples' (close: apples), 'yelow' (close: yellow), 'bakground'"),
        ("a dgo on a bleu background", "'dgo' (close: dog), 'bleu' (close: blue)"),
        ("a Zebra, a zebra and a CAT!", "'Zebra'" + LISTED),
        ("ein großer Hund", "'ein' (close: in), 'großer', 'Hund'" + LISTED),
        ("🍎 and 👩‍🚀 on a blue background", "'🍎', '👩‍🚀'" + LISTED),
        ("一只狗 on a red background", "'一只狗'" + LISTED),
        ("three cafe\u0301", "'cafe\u0301'" + LISTED),
    ],
)
def test_the_bundled_model_names_what_it_does_not_know(bundled, prompt, words):
    (line,) = bundled.prompt_remarks([prompt])
    assert line.startswith(f"This model does not know {words}")
    assert line.endswith(LISTED if words.endswith(LISTED) else ").")


@pytest.mark.parametrize(
    "prompt", ["", "A CAT; on... a (green) background?!", "two\nred\tapples", "<unk> dog", "3 cats"]
)
def test_the_bundled_model_knows_its_words(bundled, prompt):
    assert bundled.prompt_remarks([prompt]) == []


def test_many_unknown_words_stay_one_line(bundled):
    words = [f"word{index}" for index in range(MOST_NAMED + 5)]
    (line,) = bundled.prompt_remarks([" ".join(words), "x" * 1000 + "\n" + words[0]])
    assert f"'word0', 'word1', {', '.join(map(repr, words[2:MOST_NAMED]))} and 6 more; " in line
    (line,) = bundled.prompt_remarks(["x" * 1000])
    assert len(line) < 120


def test_the_word_list_has_no_special_tokens(bundled, byte_level):
    words = word_list(bundled.text_tokenizer.backend_tokenizer)
    assert {"apple", "apples", "blue", "left", "three"} <= set(words)
    assert not any(word.startswith("<") for word in words)
    assert word_list(byte_level.backend_tokenizer) == []


@pytest.mark.parametrize("prompt", ["three yellow lemons", "großer Hund", "一只狗", "🍎", "a\n<b> é", ""])
def test_byte_level_tokenizers_know_everything(byte_level, prompt):
    assert unknown_words(byte_level, prompt) == []
    assert unknown_remarks(byte_level, [prompt]) == []


def test_a_model_with_a_byte_level_tokenizer_draws_any_word_and_draws_it_again(byte_level_emu3, caplog):
    pipe, prompts = byte_level_emu3, ["three yellow lemons", "一只狗 🍎"]
    output = pipe(prompts, negative_prompt="großer Hund", generator=torch.Generator().manual_seed(1), **LATENT)
    assert caplog.messages == []
    for row, seed in enumerate(output.statistics.seeds):
        again = pipe(prompts[row], negative_prompt="großer Hund", seeds=[seed], **LATENT)
        assert torch.equal(again.tokens[0], output.tokens[row])
    with pytest.raises(ValueError, match=r"'狗狗.* …' takes \d+ tokens, .*; shorten it by \d+\."):
        pipe("狗" * 200, **LATENT)


def test_the_bundled_model_draws_again_from_recorded_seeds(bundled):
    prompts = ["a dog on a red background", "two apples on a blue background"]
    output = bundled(prompts, **LATENT)
    first, second = output.statistics.seeds
    assert torch.equal(bundled(prompts[::-1], seeds=[second, first], **LATENT).tokens, output.tokens.flip(0))
    assert torch.equal(bundled(prompts[1], seeds=second, **LATENT).tokens[0], output.tokens[1])


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a dog", []),
        ("dog, dog; (dog)!", []),
        ("the Žižek dog", ["Žižek"]),
        ("'naïve' dog-lover", ["naïve"]),
        ("dog 狗 dog", ["狗"]),
        ("dog🍎 dog", ["dog🍎"]),
        ("dog" * 20 + "狗", ["狗"]),  # no spaces part the words
    ],
)
def test_parts_of_words_are_named_as_the_word_they_stand_in(sentence_piece, prompt, words):
    assert unknown_words(sentence_piece, prompt) == words
    named = ", ".join(map(repr, words))
    assert unknown_remarks(sentence_piece, [prompt]) == ([f"This model does not know {named}."] if words else [])


def test_what_is_cut(sentence_piece, byte_level):
    text = "dog " * 20 + "red house"
    assert cut_remarks(sentence_piece, [text], 30) == []
    (line,) = cut_remarks(sentence_piece, ["a", text], 26)
    assert line == (f"'{text[:39]} …' takes 30 tokens and this model reads 26; cut off: 'ouse'.")
    (line,) = cut_remarks(byte_level, ["ä" * 22], 40)  # two bytes, two tokens each
    assert line.endswith("takes 44 tokens and this model reads 40; cut off: 'ää'.")


def test_long_captions_are_cut_as_published_and_said_so(captions, caplog):
    assert captions.transformer.config.caption_length == 8
    text = "a red dog on a blue house left of two green cat"
    with caplog.at_level(logging.WARNING, "sjd_pipelines"):
        cut = captions(text, seeds=1, output_type="latent").tokens
    kept, rest = "a red dog on a blue house left", "of two green cat"
    line = f"'{text[:40]} …' takes 12 tokens and this model reads 8; cut off: '{rest}'."
    assert caplog.messages == [line]
    caplog.clear()
    assert torch.equal(captions(kept, seeds=1, output_type="latent").tokens, cut)
    assert caplog.messages == []


def test_captions_name_words_as_they_were_typed(captions):
    if not caption_cleaning._can_clean():
        pytest.skip("needs sjd-pipelines[captions]")
    assert captions.prompt_remarks(["A red Lemon", "a LEMON 狗 on https://a.org/b.png"]) == [
        "This model's captions are cleaned of '狗', 'https', 'org', 'b', 'png'.",
        "This model does not know 'Lemon', 'LEMON'" + LISTED,
    ]


def test_classes_have_no_words(classes):
    assert classes.prompt_remarks(["3"]) == []


@pytest.mark.parametrize("name", ["emu3", "anole", "lumina"])
def test_prompts_that_do_not_fit_beside_the_picture_are_refused(request, name, monkeypatch):
    pipe = request.getfixturevalue(name)
    layout = pipe.image_layout(None, None)
    encoded = pipe.encode_prompt(["a red dog"], None, False, 1, layout)
    assert pipe.prompt_length("a red dog", layout) == int(encoded.visible.sum())
    room = 512 - layout.num_tokens
    spare = room - pipe.prompt_length("", layout)
    pipe.check_prompts(["dog " * spare], ["dog " * spare], layout)
    with pytest.raises(ValueError, match=rf"takes {room + 1} tokens, .* {room} are the most .*; shorten it by 1\."):
        pipe("dog " * (spare + 1), output_type="latent")
    config = pipe.model.config.get_text_config()
    monkeypatch.setattr(config, "max_position_embeddings", layout.num_tokens)  # the picture alone goes beyond it
    pipe.check_prompts(["dog " * 1000], None, layout)


def test_the_bundled_model_refuses_what_it_was_not_trained_to_read(bundled, caplog):
    layout = bundled.image_layout(None, None)
    bundled.check_prompts(["dog " * 60], ["dog"], layout)
    for texts in ({"prompt": "dog " * 61}, {"prompt": "dog", "negative_prompt": "dog " * 61}):
        with pytest.raises(ValueError, match=r"takes 65 tokens, .* 64 are the most it reads; shorten it by 1\."):
            bundled(**texts)
    assert caplog.messages == []
