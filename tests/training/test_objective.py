"""Soft targets must equal the law they stand for, and weights must not look ahead."""

import numpy as np
import torch

from sjd_pipelines.emoji.codes import BACKGROUND_CODES
from sjd_pipelines.emoji.scenes import LEVELS, sample_light, sample_shading
from sjd_pipelines.training.batches import MIXED, draw_batch
from sjd_pipelines.training.objective import FIRST_WEIGHT, OPEN_WEIGHT, position_weights, token_law


def test_law_is_the_frequency_of_the_drawn_levels():
    rng = np.random.default_rng(0)
    light = sample_light(rng)
    levels = np.stack([np.rint(sample_shading(rng, light)) for _ in range(4000)]).astype(int)
    frequency = np.stack([(levels == level).mean(0) for level in range(LEVELS)], axis=-1).reshape(256, LEVELS)
    tokens = torch.full((1, 256), 3 * LEVELS + 1)
    choices, law = token_law(tokens, torch.from_numpy(light).reshape(1, 256))
    assert (choices[0] == 3 * LEVELS + torch.arange(LEVELS)).all()
    assert np.abs(law[0].numpy() - frequency).max() < 0.04


def test_glyph_tokens_are_certain():
    _, tokens, light, *_ = draw_batch(np.random.default_rng(0), MIXED, 4)
    choices, law = token_law(tokens, light)
    assert torch.allclose(law.sum(-1), torch.ones(tokens.shape))
    glyph = tokens >= BACKGROUND_CODES
    assert (choices[glyph][:, 0] == tokens[glyph]).all()
    assert (law[glyph][:, 0] == 1).all()
    assert (choices[~glyph] == tokens[~glyph][:, None]).any(-1).all()


def test_weights_depend_on_earlier_tokens_only():
    _, tokens, *_ = draw_batch(np.random.default_rng(1), MIXED, 4)
    weights = position_weights(tokens)
    assert (weights[:, 0] == FIRST_WEIGHT).all()
    assert set(weights[:, 1:].unique().tolist()) == {1.0, OPEN_WEIGHT}
    for position in (20, 100, 200):
        changed = tokens.clone()
        changed[:, position:] = BACKGROUND_CODES
        assert torch.equal(position_weights(changed)[:, : position + 1], weights[:, : position + 1])
