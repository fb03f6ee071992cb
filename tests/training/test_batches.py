"""Training batches: one caption length each, a function of seed and index, and right about what they show."""

import numpy as np
import pytest
import torch

from sjd_pipelines.emoji.captions import BOI, BOS, PAD, UNK, VOCABULARY, caption, encode_caption, second_noun
from sjd_pipelines.emoji.codes import BACKGROUND_CODES
from sjd_pipelines.emoji.scenes import OPPOSITES, RELATIONS, Scene, sample_scene
from sjd_pipelines.training.batches import MIXED, NOWHERE, Batches, captioned_scenes, draw_batch
from sjd_pipelines.training.phases import Phase


def batch(seed=0, mix=MIXED, size=8, **options):
    return draw_batch(np.random.default_rng(seed), mix, size, **options)


def test_batches_have_one_caption_length_and_drop_some_captions():
    dropped = 0
    for seed in range(20):
        rows = batch(seed, caption_dropout=0.5)
        assert rows.tokens.shape == rows.light.shape == (8, 256)
        assert (rows.prompt[:, 0] == BOS).all()
        assert (rows.prompt[:, -1] == BOI).all()
        blank = rows.prompt[:, 1] == PAD
        assert (rows.part[blank] == NOWHERE).all()  # nothing is asked where nothing is said
        dropped += int(blank.sum())
    assert 40 < dropped < 120


def test_lengths_come_as_often_as_in_single_draws():
    def lengths(size):
        draws = (captioned_scenes(np.random.default_rng([size, i]), MIXED, size) for i in range(400))
        return np.bincount([len(rows[0][1]) for rows in draws], minlength=30) / 400

    assert np.abs(lengths(1) - lengths(3)).max() < 0.1


def test_a_rare_length_fills_its_batch():
    rows = captioned_scenes(np.random.default_rng(0), (1.0, 0.0, 0.0), 64)
    assert len(rows) == 64
    assert len({len(prompt) for _, prompt in rows}) == 1


def test_a_batch_is_a_function_of_seed_and_index():
    phases = (Phase(8, (1.0, 0.0, 0.0)), Phase(8, (0.0, 0.0, 1.0)))
    batches = Batches(phases, 4, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(batches[1], Batches(phases, 4, seed=3)[1]))
    assert not torch.equal(batches[0].tokens, batches[1].tokens)
    assert not torch.equal(batches[1].tokens, Batches(phases, 4, seed=4)[1].tokens)
    assert (batches[1].part == NOWHERE).all()  # the first phase has single objects only
    assert (batches[2].part >= 0).any()


def test_objects_begin_where_their_first_token_is():
    for seed in range(10):
        rows = batch(seed)
        glyphs = rows.tokens >= BACKGROUND_CODES
        assert torch.equal(rows.begins[:, 0], glyphs.int().argmax(1))
        for row, begins in enumerate(rows.begins.tolist()):
            assert begins == sorted(begins)
            assert all(glyphs[row, begin] for begin in begins if begin < 256)
            if begins[0] >= 16:
                assert not glyphs[row, begins[0] - 16]  # nothing above


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


def test_second_noun_stands_behind_the_relation():
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


def test_the_part_is_where_the_second_object_is():
    """Told by the picture alone: the second object's glyph stands in the half that its part names."""
    seen = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rows = captioned_scenes(rng, (0.0, 0.0, 1.0), 4)
        for scene, prompt in rows:
            assert scene.relation is not None
            part = RELATIONS.index(OPPOSITES[scene.relation])
            assert prompt[second_noun(scene, prompt)] != prompt[1]
            seen.add(part)
    assert seen == {0, 1, 2, 3}
