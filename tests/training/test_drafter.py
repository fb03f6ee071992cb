"""Drafter training: what a roll-out sees, a run that stops, resumes and learns, and its export."""

import json

import numpy as np
import pytest
import torch

from sjd_pipelines import SeededJacobiScheduler, SJDJanusPipeline
from sjd_pipelines.learning.timed import run_files
from sjd_pipelines.training.__main__ import build_parser
from sjd_pipelines.training.drafter import (
    NAME,
    DrafterRecipe,
    build_drafter,
    correction_loss,
    drafter_loss,
    export_drafter,
    roll_out,
    roll_out_mask,
    teach,
    train_drafter,
)
from sjd_pipelines.training.drawings import REUSE, Drawing, Drawings
from sjd_pipelines.training.export import build_processor

from .conftest import exported, learned

CAPTIONS = ["a dog on a red background", "two cats on a blue background"]


@pytest.fixture
def target(tiny_model):
    return SJDJanusPipeline(tiny_model.eval(), build_processor(), SeededJacobiScheduler())


def picture_tokens(seed=0):
    return torch.randint(2048, (2, 256), generator=torch.Generator().manual_seed(seed))


def test_a_roll_out_sees_its_own_drafts_and_the_target_before_them():
    first, second, third = (roll_out_mask(4, step).int().tolist() for step in range(3))
    assert first == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert second[3] == [1, 1, 1, 0, 0, 0, 0, 1]
    assert third[3] == [1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert third[0] == [0] * 8 + [1, 0, 0, 0]  # no slot sees nothing


def test_guesses_depend_on_what_was_there_to_see(target):
    """A change of token 9 and of what the target made of it."""
    drafter, tokens = build_drafter(32, seed=0), picture_tokens()
    with torch.no_grad():
        drafter.layer.attention.to_out.weight.normal_(generator=torch.Generator().manual_seed(0))
        hidden, _ = teach(target, CAPTIONS, tokens, 2.0)
        other = hidden.clone()
        other[:, 9] += 1.0
        embeds = target.embed_image_tokens(tokens).repeat(2, 1, 1)
        changed = [
            (one != two).any(-1).any(0).nonzero()[:, 0].tolist()
            for one, two in zip(roll_out(drafter, hidden, embeds, 16, 3), roll_out(drafter, other, embeds, 16, 3))
        ]
    assert [first for first, *_ in changed] == [9, 10, 11]  # state 9 is what guess 9 starts from, guess 10 next


def test_the_loss_weighs_laws_and_states(target, tmp_path):
    recipe = DrafterRecipe(tmp_path, roll_out=2, feature_weight=0.0)
    drafter = build_drafter(32, seed=0)
    laws, overlaps = drafter_loss(drafter, target, CAPTIONS, picture_tokens(), 2.0, recipe)
    recipe.feature_weight = 1.0
    both, _ = drafter_loss(drafter, target, CAPTIONS, picture_tokens(), 2.0, recipe)
    assert both > laws > 0
    assert set(overlaps) == {"overlap_1", "overlap_2"}
    assert all(0 < overlap <= 1 for overlap in overlaps.values())


def test_drawings_tell_how_pictures_came_about(target):
    drawings = Drawings(target, np.random.default_rng(0), batch_size=2)
    scheduler, state = target.scheduler, torch.random.get_rng_state()
    first = drawings.next()
    assert target.scheduler is scheduler
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.canvas.shape == (len(first.committed), 2, 256)
    assert (first.committed.diff(dim=0) >= 0).all()
    assert (first.committed[-1] == 256).all()
    for row, count in enumerate(first.committed[0].tolist()):  # what is committed stays
        assert (first.canvas[:, row, :count] == first.canvas[-1, row, :count]).all()
    assert [drawings.next() is first for _ in range(REUSE)] == [True] * (REUSE - 1) + [False]


def test_corrections_are_judged_by_what_the_target_says_next(target):
    canvas = torch.randint(2048, (3, 2, 256), generator=torch.Generator().manual_seed(0))
    committed = torch.tensor([[5, 9], [20, 30], [256, 40]])
    drafter, rng = build_drafter(32, seed=0), np.random.default_rng(2)
    loss, overlaps = correction_loss(drafter, target, Drawing(CAPTIONS, 2.0, canvas, committed), rng, 2)
    assert loss > 0
    assert set(overlaps) == {"overlap_before", "overlap_corrected"}
    loss.backward()
    assert drafter.fuse.weight.grad.abs().sum() > 0

    still = Drawing(CAPTIONS, 2.0, canvas[:1].repeat(3, 1, 1), committed)  # nothing has changed
    _, overlaps = correction_loss(drafter, target, still, rng, 2)
    assert overlaps["overlap_before"] == pytest.approx(1, abs=1e-3)
    assert overlaps["overlap_corrected"] == pytest.approx(1, abs=0.02)  # states come in half precision


def test_training_learns_stops_and_resumes(tmp_path, target):
    recipe = DrafterRecipe(tmp_path, decay_minutes=0, batch_size=2, warmup=2, log_every=2, max_steps=4, threads=1)
    first, second = learned(recipe, train_drafter, target)
    assert (first["step"], first["images"]) == (4, 8)
    assert (second["step"], second["images"]) == (8, 16)
    assert second["probe_loss"] < first["probe_loss"]
    log = [json.loads(line) for line in run_files(tmp_path, NAME)[-1].read_text().splitlines()]
    assert {"overlap_1", "overlap_2", "overlap_3", "overlap_corrected"} <= set().union(*log)
    assert not list(tmp_path.glob("*.tmp"))

    drafter, card = exported(export_drafter, tmp_path, NAME)
    assert drafter.config.hidden_size == 32
    assert "8 pictures in" not in card
    assert "16 pictures in 8 steps" in card


def test_the_command_takes_every_field_of_the_recipe(tmp_path):
    options = vars(build_parser().parse_args(["drafter", "--folder", str(tmp_path), "--roll-out", "2"]))
    assert options.pop("command") == "drafter"
    assert DrafterRecipe(**options) == DrafterRecipe(tmp_path, roll_out=2)
