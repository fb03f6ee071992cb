"""Reviser training: what it learns from, a run that stops, resumes and learns, and its export."""

import json

import numpy as np
import pytest
import torch

from sjd_pipelines import AutoregressiveScheduler, SJDJanusPipeline
from sjd_pipelines.decoding import Query, TargetPass
from sjd_pipelines.learning.timed import run_files
from sjd_pipelines.training.__main__ import build_parser
from sjd_pipelines.training.export import build_processor
from sjd_pipelines.training.reviser import (
    NAME,
    ReviserRecipe,
    build_reviser,
    export_reviser,
    reviser_loss,
    train_reviser,
)
from sjd_pipelines.training.revisions import NEAR, REUSE, PassRecorder, Revisions, draw

from .conftest import exported, learned

CAPTIONS = ["a dog on a red background", "two cats on a blue background"]


@pytest.fixture
def target(tiny_model):
    with torch.no_grad():  # laws of some certainty, which tokens change
        tiny_model.model.generation_head.vision_head.weight.mul_(1000)
    pipe = SJDJanusPipeline(tiny_model.eval(), build_processor(), AutoregressiveScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_examples_are_places_whose_neighbours_have_changed():
    """Two passes over a picture four tokens wide, in two rows that move on by different steps."""
    recorder = PassRecorder(columns=4, batch_size=2, length=20)
    visible = torch.ones(2, 7, 20, dtype=torch.bool)
    earlier = torch.arange(2, 9).expand(2, -1)
    later = torch.stack([torch.arange(4, 11), torch.arange(3, 10)])
    first = Query(torch.zeros(2, 7, dtype=torch.int64), earlier, earlier + 1, visible)
    then = Query(torch.zeros(2, 7, dtype=torch.int64), later, later + 1, visible)
    then.token_ids[0, 0] = 5  # position 4 of the first row
    then.token_ids[1, 2] = 6  # position 5 of the second row
    hidden = torch.arange(4 * 7, dtype=torch.float32).view(4, 7, 1).expand(-1, -1, 4)
    recorder.observe(TargetPass(first, hidden, hidden))
    recorder.observe(TargetPass(then, 100 + hidden, hidden))
    (examples,) = recorder.kept
    # What looks at position 4: 4, 5, 6 on its right, then 6, 7, 8 below it, as far as the first pass saw.
    assert examples.distance.tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert (examples.tokens.sum(-1) == torch.tensor([5, 5, 10, 5, 5, 6, 6, 12, 6])).all()
    assert (examples.seen == 0).all()
    assert examples.hidden[0, :, 0, 0].tolist() == [2, 3, 4, 5, 6, 10, 11, 12, 13]  # slots of the first pass
    assert examples.hidden[1, :, 1, 0].tolist() == [15, 16, 17, 18, 19, 23, 24, 25, 26]  # and the ones before
    assert examples.result[0, :, 0].tolist() == [100, 101, 102, 103, 104, 109, 110, 111, 112]


def test_drawings_are_used_a_few_times(target):
    stream = Revisions(target, np.random.default_rng(0), batch_size=2)
    scheduler, state = target.scheduler, torch.random.get_rng_state()
    batch = stream.next(50)
    assert target.scheduler is scheduler
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(batch.examples) == 50
    assert ((batch.examples.distance >= 0) & (batch.examples.distance < NEAR)).all()
    assert (batch.examples.seen != batch.examples.tokens).any(-1).all()
    for _ in range(REUSE - 1):
        stream.next(1)
    assert (len(stream.kept), stream.images) == (1, 2)
    stream.next(1)
    assert (len(stream.kept), stream.images) == (2, 4)


def test_the_loss_compares_with_the_law_of_the_next_pass(target):
    network = build_reviser(target, seed=0)
    embeds = target.embed_image_tokens(torch.arange(2048))
    drawn = draw(target, CAPTIONS, [1, 2], 2.0, top_p=1.0)
    _, overlaps = reviser_loss(network, target, embeds, drawn)
    assert overlaps["revised"] == pytest.approx(overlaps["before"], abs=1e-5)  # it changes nothing yet
    assert 0 < overlaps["before"] < 0.999
    drawn.examples.result = drawn.examples.hidden[..., 0, :]
    _, overlaps = reviser_loss(network, target, embeds, drawn)
    assert overlaps["before"] == pytest.approx(1, abs=1e-3)


def test_training_learns_stops_and_resumes(tmp_path, target):
    recipe = ReviserRecipe(tmp_path, decay_minutes=0, batch_size=256, warmup=2, log_every=20, max_steps=20, threads=1)
    first, second = learned(recipe, train_reviser, target)
    assert (first["step"], first["images"]) == (20, 8)
    assert (second["step"], second["images"]) == (40, 16)
    log = [json.loads(line) for line in run_files(tmp_path, NAME)[-1].read_text().splitlines()]
    assert [entry["step"] for entry in log] == [20, 20, 40, 40]
    assert log[2]["revised"] - log[2]["before"] > log[0]["revised"] - log[0]["before"] > 0
    assert not list(tmp_path.glob("*.tmp"))

    network, card = exported(export_reviser, tmp_path, NAME)
    assert (network.config.hidden_size, network.config.vocabulary_size) == (32, 2048)
    assert "40 steps" in card
    begun = build_reviser(target, 0, str(tmp_path / "bundle" / NAME)).state_dict()
    assert all(torch.equal(begun[name], weight) for name, weight in network.state_dict().items())


def test_the_command_takes_every_field_of_the_recipe(tmp_path):
    options = vars(build_parser().parse_args(["reviser", "--folder", str(tmp_path), "--batch-size", "7"]))
    assert options.pop("command") == "reviser"
    assert ReviserRecipe(**options) == ReviserRecipe(tmp_path, batch_size=7)
