"""Scenes: what is drawn, where it stands, and what is kept from training."""

import numpy as np
import pytest

from sjd_pipelines.emoji.codes import BACKGROUND_CODES, CODEBOOK, glyph_codes, k_means, scene_tokens
from sjd_pipelines.emoji.glyphs import GRID, LARGE, OBJECTS, SMALL, load_glyphs
from sjd_pipelines.emoji.scenes import (
    BACKGROUNDS,
    KINDS,
    LEVELS,
    RELATIONS,
    Placement,
    Scene,
    place,
    render,
    sample_scene,
    sample_shading,
)


def scenes_of(kind, count, held_out=False, seed=0):
    rng = np.random.default_rng(seed)
    return [(sample_scene(rng, kind, held_out), rng) for _ in range(count)]


def test_glyph_sheet_holds_every_object_at_both_sizes():
    assert len(OBJECTS) >= 44
    for cells in (LARGE, SMALL):
        glyphs = load_glyphs(cells)
        assert glyphs.shape == (len(OBJECTS), 8 * cells, 8 * cells, 4)
        assert (glyphs[..., 3].mean((1, 2)) > 0.1).all()  # every tile has ink
        assert (glyphs[..., :3] <= glyphs[..., 3:] + 1e-6).all()  # premultiplied


@pytest.mark.parametrize("kind", KINDS)
def test_glyphs_stay_on_the_grid_and_apart(kind):
    for scene, rng in scenes_of(kind, 200):
        covered = np.zeros((GRID, GRID), dtype=int)
        for p in place(scene, rng):
            assert 0 <= p.row <= GRID - p.cells
            assert 0 <= p.column <= GRID - p.cells
            covered[p.row : p.row + p.cells, p.column : p.column + p.cells] += 1
        assert covered.max() == 1
        assert (covered == 0).sum() > 60  # the background shows


def test_relations_are_where_they_say():
    seen = set()
    for scene, rng in scenes_of("relation", 200):
        first, second = place(scene, rng)
        rows, columns = first.row - second.row, first.column - second.column
        along = {"left": -columns, "right": columns, "above": -rows, "below": rows}[scene.relation]
        across = rows if scene.relation in ("left", "right") else columns
        assert along >= SMALL
        assert abs(across) <= 3
        seen.add(scene.relation)
    assert seen == set(RELATIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_scenes_never_train(kind):
    def key(scene):
        return scene.objects, scene.background, scene.relation

    trained = {key(scene) for scene, _ in scenes_of(kind, 2000)}
    kept = {key(scene) for scene, _ in scenes_of(kind, 300, held_out=True, seed=1)}
    assert kept
    assert not trained & kept


def test_a_mirrored_relation_shares_its_fate():
    for first in OBJECTS[:12]:
        for second in OBJECTS[12:24]:
            for background in BACKGROUNDS:
                left = Scene((first, second), background, "left")
                assert left.held_out == Scene((second, first), background, "right").held_out
    share = np.mean([Scene((name,), colour).held_out for name in OBJECTS for colour in BACKGROUNDS])
    assert 0.05 < share < 0.15


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        sample_scene(np.random.default_rng(0), "crowd")


def test_glyph_tokens_do_not_depend_on_place_or_background():
    rng = np.random.default_rng(0)
    codes = glyph_codes(SMALL)[3]
    for background, row, column in (("red", 0, 9), ("white", 5, 2)):
        scene = Scene((OBJECTS[3],), background)
        tokens = scene_tokens(scene, [Placement(3, row, column, SMALL)], sample_shading(rng)).reshape(GRID, GRID)
        window = tokens[row : row + SMALL, column : column + SMALL]
        assert (window[codes >= 0] == codes[codes >= 0]).all()
        outside = tokens.copy()
        outside[row : row + SMALL, column : column + SMALL][codes >= 0] = -1
        assert set(np.unique(outside[outside >= 0] // LEVELS)) == {BACKGROUNDS.index(background)}


def test_codes_fit_the_codebook():
    for cells in (LARGE, SMALL):
        codes = glyph_codes(cells)
        assert codes.shape == (len(OBJECTS), cells, cells)
        inked = codes[codes >= 0]
        assert inked.min() >= BACKGROUND_CODES
        assert inked.max() < CODEBOOK


def test_render_shows_the_background_and_the_glyph():
    rng = np.random.default_rng(0)
    flat = np.full((GRID, GRID), (LEVELS - 1) / 2, dtype=np.float32)
    pixels = render(Scene(("apple",), "blue"), [Placement(OBJECTS.index("apple"), 3, 3, LARGE)], flat)
    assert pixels.shape == (128, 128, 3)
    assert pixels.dtype == np.float32
    assert np.allclose(pixels[0, 0], np.array([45, 85, 200]) / 255, atol=1e-6)
    assert pixels[64, 64, 0] > 0.6 > pixels[64, 64, 2]  # the apple is red
    assert sample_shading(rng).std() > 0


def test_k_means_finds_separate_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
    truth = rng.integers(0, 3, 300)
    points = centres[truth] + rng.normal(0, 0.1, (300, 2)).astype(np.float32)
    found = k_means(points, 3, rng)
    assert all(len(np.unique(found[truth == cluster])) == 1 for cluster in range(3))
    assert len(np.unique(found)) == 3
