"""Captions and the tokenizer that reads them."""

import numpy as np
import pytest

from sjd_pipelines.emoji.captions import (
    BOI,
    BOS,
    UNK,
    VOCABULARY,
    build_tokenizer,
    caption,
    encode_caption,
    second_noun,
)
from sjd_pipelines.emoji.glyphs import OBJECTS
from sjd_pipelines.emoji.scenes import KINDS, Scene, sample_scene
from sjd_pipelines.training.export import build_processor


def templated(processor, text):
    message = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    return processor.apply_chat_template(message, add_generation_prompt=True)


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def test_plain_captions():
    rng = np.random.default_rng(0)
    expected = {
        Scene(("apple",), "orange"): "an apple on an orange background",
        Scene(("fox", "fox"), "red"): "two foxes on a red background",
        Scene(("cat",) * 3, "blue"): "three cats on a blue background",
        Scene(("dog", "owl"), "pink", "above"): "a dog above an owl on a pink background",
    }
    assert {scene: caption(scene, rng, plain=True) for scene in expected} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_direct_encoding_equals_the_processor(kind, processor):
    rng = np.random.default_rng(1)
    for _ in range(60):
        text = caption(sample_scene(rng, kind), rng)
        ids = processor(text=[templated(processor, text)], generation_mode="image")["input_ids"][0]
        assert list(ids) == encode_caption(text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_caption_word_is_known(kind):
    rng = np.random.default_rng(2)
    for _ in range(300):
        text = caption(sample_scene(rng, kind), rng)
        assert all(word in VOCABULARY for word in text.split())


def test_user_spelling_is_forgiven(processor):
    ids = processor(text=[templated(processor, "Two DOGS, on a blue background!")], generation_mode="image")
    assert list(ids["input_ids"][0]) == encode_caption("two dogs on a blue background")


def test_unknown_words_become_unk():
    ids = build_tokenizer()("a zebra on red")["input_ids"]
    assert ids[0] == BOS
    assert ids.count(UNK) == 1


def test_batches_are_padded_on_the_left(processor):
    texts = [templated(processor, "a dog"), templated(processor, "three cats on a red background")]
    batch = processor(text=texts, generation_mode="image", padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert (batch["input_ids"][:, -1] == BOI).all()
    assert batch["attention_mask"][0, 0] == 0


def test_objects_are_single_words():
    assert all(" " not in name for name in OBJECTS)


@pytest.mark.parametrize(
    ("text", "scene", "noun"),
    [
        ("a dog left of a car on a green background", Scene(("dog", "car"), "green", "left"), "car"),
        ("a dog to the left of a red car on green", Scene(("dog", "car"), "green", "left"), "car"),
        ("an orange fox on top of the puppy", Scene(("fox", "dog"), "pink", "above"), "puppy"),
        ("draw 1 football under one cute sunflower", Scene(("ball", "flower"), "red", "below"), "sunflower"),
        ("two cats <unk> beneath <unk> grapes", Scene(("cat", "grapes"), "red", "below"), "grapes"),
        ("show me a fish right of bunnies", Scene(("fish", "rabbit"), "blue", "right"), "bunnies"),
    ],
)
def test_second_noun_in_every_phrasing(text, scene, noun):
    prompt = encode_caption(text)
    assert prompt[second_noun(scene, prompt)] == VOCABULARY[noun]


def test_second_noun_stands_after_the_relation():
    """Read backwards from the noun, the first relation word belongs to the relation's phrases."""
    words_of = {
        "left": {"left"},
        "right": {"right"},
        "above": {"above", "over", "top"},
        "below": {"below", "under", "beneath"},
    }
    rng = np.random.default_rng(5)
    relation_words = set().union(*words_of.values())
    unknown = 0
    for _ in range(600):
        scene = sample_scene(rng, "relation")
        text = caption(scene, rng)
        words = ["<bos>", "<|user|>", *text.split()]
        index = second_noun(scene, encode_caption(text))
        found = [word for word in words[:index] if word in relation_words]
        assert found[-1] in words_of[scene.relation]
        assert not relation_words & set(words[index:])
        unknown += UNK in encode_caption(text)
    assert unknown > 10


def test_a_prompt_without_the_noun_is_refused():
    with pytest.raises(ValueError, match="'car'"):
        second_noun(Scene(("dog", "car"), "green", "left"), encode_caption("a dog left of a cat"))
