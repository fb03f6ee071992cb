"""A Janus small enough to train for a few steps inside a test."""

import pytest

from sjd_pipelines.training.architecture import build_config, build_model


@pytest.fixture
def tiny_model():
    config = build_config(hidden=32, layers=1, heads=2, feed_forward=32)
    config.vq_config.base_channels = 32
    config.vq_config.channel_multiplier = [1, 1, 1, 1]
    return build_model(config)
