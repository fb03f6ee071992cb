"""A Janus small enough to train for a few steps inside a test."""

import pytest
import torch

from sjd_pipelines.companions import COMPANIONS
from sjd_pipelines.learning.timed import run_files
from sjd_pipelines.pipelines.loading import load_network
from sjd_pipelines.training.architecture import build_config, build_model


@pytest.fixture
def tiny_config():
    config = build_config(hidden=32, layers=1, heads=2, feed_forward=32)
    config.vq_config.base_channels = 32
    config.vq_config.channel_multiplier = [1, 1, 1, 1]
    return config


@pytest.fixture
def tiny_model(tiny_config):
    return build_model(tiny_config)


def exported(export, run, name):
    """A trained helper as its second export gives it back, and its card."""
    with pytest.raises(FileNotFoundError, match="is no folder"):
        export(run, run / "nowhere")
    bundle = run / "bundle"
    bundle.mkdir()
    for _ in range(2):  # the second replaces the first
        network = load_network(COMPANIONS[name], export(run, bundle), torch.float32)
    assert [file.name for file in bundle.iterdir()] == [name]
    average_file, _, log_file = run_files(run, name)
    log = log_file.read_text()
    log_file.write_text("".join(line for line in log.splitlines(True) if "machine" not in line))  # never at an end
    with pytest.raises(ValueError, match="was stopped before it was measured; start its command again"):
        export(run, bundle)
    log_file.write_text(log)
    size = sum(file.stat().st_size for file in (bundle / name).iterdir())
    assert size < 0.6 * average_file.stat().st_size  # half precision
    return network, (bundle / name / "README.md").read_text()


def learned(recipe, train, target):
    """Two runs, the second of which goes on where the first stopped, and leaves the global random state alone."""
    state = torch.random.get_rng_state()
    first = train(recipe, target)
    assert torch.equal(torch.random.get_rng_state(), state)
    return first, train(recipe, target)
