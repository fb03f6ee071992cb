"""The judge must accept every true picture and nothing else."""

import numpy as np
import pytest
import torch
from PIL import Image

from sjd_pipelines.emoji.glyphs import OBJECTS
from sjd_pipelines.emoji.judge import ceilings, held_out_scenes, read_scene, score_picture, score_pictures, to_pixels
from sjd_pipelines.emoji.scenes import BACKGROUNDS, KINDS, Scene, place, render, sample_shading


def drawn(scene, seed=0):
    rng = np.random.default_rng(seed)
    return render(scene, place(scene, rng), sample_shading(rng))


@pytest.mark.parametrize("kind", KINDS)
def test_true_pictures_score_everything(kind):
    _, scenes = zip(*held_out_scenes(30, kind, seed=2))
    scores = score_pictures([drawn(scene, seed) for seed, scene in enumerate(scenes)], scenes)
    assert scores.pop("n") == 30
    assert all(rate == 1 for rate in scores.values()), scores


def test_every_object_is_recognised_on_a_similar_and_a_different_background():
    for seed, name in enumerate(OBJECTS):
        for background in ("white", BACKGROUNDS[seed % len(BACKGROUNDS)]):
            reading = read_scene(drawn(Scene((name,), background), seed))
            assert reading.objects == (name,), (name, background, reading)


def test_blur_and_noise_are_forgiven():
    scene = Scene(("dog", "car"), "green", "left")
    generator = torch.Generator().manual_seed(0)
    picture = torch.from_numpy(drawn(scene)).permute(2, 0, 1)
    blurred = torch.nn.functional.avg_pool2d(picture[None], 3, 1, 1, count_include_pad=False)[0]
    assert score_picture(blurred + 0.03 * torch.randn(blurred.shape, generator=generator), scene)["all"]


def test_wrong_truths_are_refused():
    picture = drawn(Scene(("dog", "car"), "green", "left"))
    assert not score_picture(picture, Scene(("dog", "bus"), "green", "left"))["object"]
    assert not score_picture(picture, Scene(("car", "dog"), "green", "left"))["relation"]
    assert not score_picture(picture, Scene(("dog", "car"), "green", "above"))["relation"]
    assert not score_picture(picture, Scene(("dog", "car"), "blue", "left"))["background"]
    assert not score_picture(picture, Scene(("dog",), "green"))["all"]
    three = drawn(Scene(("dog",) * 3, "green"))
    assert not score_picture(three, Scene(("dog",) * 2, "green"))["count"]


def test_blank_and_noisy_pictures_hold_nothing():
    rng = np.random.default_rng(0)
    for picture in (np.full((128, 128, 3), 0.5, np.float32), rng.random((128, 128, 3)).astype(np.float32)):
        assert read_scene(picture).objects == ()


def test_half_a_glyph_is_not_a_glyph():
    scene = Scene(("panda",), "blue")
    picture = drawn(scene)
    empty = drawn(Scene(("key",), "blue"))[:2, :2].mean((0, 1))
    rows = np.abs(picture - empty).sum((1, 2))
    middle = int((rows > rows.max() / 4).nonzero()[0].mean())
    picture[middle:] = empty
    assert read_scene(picture).objects == ()


def test_inputs_of_every_type_read_alike():
    scene = Scene(("apple", "apple"), "white")
    array = drawn(scene)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    image = Image.fromarray((array * 255).round().astype(np.uint8))
    readings = [read_scene(kind) for kind in (array, tensor, image, image.resize((256, 256)))]
    assert all(reading.objects == ("apple", "apple") for reading in readings)
    with pytest.raises(ValueError, match="RGB"):
        to_pixels(np.zeros((4, 4)))


def test_scoring_needs_matching_lists():
    with pytest.raises(ValueError, match="as many pictures"):
        score_pictures([], [])


def test_held_out_prompts_repeat_by_seed_and_name_their_truth():
    prompts = held_out_scenes(5, "relation", seed=1)
    assert prompts == held_out_scenes(5, "relation", seed=1)
    for text, scene in prompts:
        assert scene.held_out
        assert all(name in text for name in (*scene.objects, scene.background))


def test_true_pictures_are_the_ceiling_and_a_decoder_that_shows_nothing_is_found_out():
    scores = ceilings(lambda tokens: torch.full((len(tokens), 3, 128, 128), 0.5), 1)
    assert scores["rendered (ceiling)"]["all"] == 1
    decoded = scores["decoded from true tokens (ceiling)"]
    assert (decoded["n"], decoded["all"]) == (3, 0)
    assert 5 < decoded["psnr"] < 15
