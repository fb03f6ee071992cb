"""Losses on inner states: their targets in hand-made scenes, and what they ask of whom."""

import math

import pytest
import torch

from sjd_pipelines.emoji.captions import VOCABULARY, encode_caption
from sjd_pipelines.emoji.scenes import RELATIONS, Scene
from sjd_pipelines.training.architecture import unconditional_prompt
from sjd_pipelines.training.auxiliary import (
    PART_WORDS,
    UNTOLD,
    SceneHeads,
    part_loss,
    read_layers,
    scene_state,
    state_losses,
)
from sjd_pipelines.training.batches import NOWHERE, Batch, noun_and_part


def batch_of(text, scene=None, begins=(256, 256, 256), dropped=False):
    """One row with an empty picture."""
    prompt = encode_caption(text)
    noun, part = (0, NOWHERE) if scene is None else noun_and_part(scene, prompt)
    ids = torch.tensor([prompt])
    return Batch(
        unconditional_prompt(ids) if dropped else ids,
        torch.zeros(1, 256, dtype=torch.int64),
        torch.zeros(1, 256),
        torch.tensor([begins]),
        torch.tensor([noun]),
        torch.tensor([part]),
    )


@pytest.mark.parametrize(
    ("text", "scene", "part"),
    [
        ("a dog left of a car on a green background", Scene(("dog", "car"), "green", "left"), "right"),
        ("a dog to the right of a car", Scene(("dog", "car"), "green", "right"), "left"),
        ("a picture of a dog over <unk> the red car on pink", Scene(("dog", "car"), "pink", "above"), "below"),
        ("a dog beneath a car with a red background", Scene(("dog", "car"), "red", "below"), "above"),
    ],
)
def test_the_second_noun_has_the_opposite_part(text, scene, part):
    batch = batch_of(text, scene)
    noun = int(batch.noun)
    assert int(batch.prompt[0, noun]) == VOCABULARY["car"]
    assert RELATIONS[int(batch.part)] == part
    # A state that points at the part's word answers right; one that points at another is wrong.
    embeddings = torch.zeros(len(VOCABULARY), 8)
    embeddings[list(PART_WORDS), range(4)] = 5.0
    states = torch.zeros(1, batch.prompt.shape[1] + 255, 8)
    states[0, noun, RELATIONS.index(part)] = 1.0
    assert part_loss([states], embeddings, batch) < 1e-4
    wrong = states[..., [1, 0, 3, 2, 4, 5, 6, 7]]
    assert part_loss([wrong], embeddings, batch) > 5
    assert part_loss([states.roll(1, 1)], embeddings, batch) == pytest.approx(math.log(4))  # read at the noun only


@pytest.mark.parametrize("text", ["two dogs on a red background", "a car"])
def test_other_captions_are_not_asked_for_parts(text):
    batch = batch_of(text)
    states = torch.randn(1, 300, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = part_loss([states], torch.ones(len(VOCABULARY), 8), batch)
    loss.backward()
    assert loss == 0
    assert not states.grad.any()


def test_scene_state_counts_what_came_before():
    begun, to_come = scene_state(batch_of("three dogs", begins=(20, 29, 130)))
    assert begun[0, [0, 20, 21, 29, 30, 130, 131, 255]].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert to_come[0, [0, 20, 21, 29, 30, 130, 131, 255]].tolist() == [3, 3, 2, 2, 1, 1, 0, 0]


def test_without_a_caption_nothing_is_known_of_what_is_to_come():
    batch = batch_of("a dog", begins=(20, 256, 256), dropped=True)
    begun, to_come = scene_state(batch)
    assert begun.max() == 1
    assert (to_come == UNTOLD).all()
    known, told = state_losses(SceneHeads(8), torch.ones(1, 256, 8), batch)
    assert known.item() == pytest.approx(math.log(4))
    assert told == 0


def test_heads_can_learn_the_scene_state():
    batch = batch_of("two dogs", begins=(20, 130, 256))
    begun, to_come = scene_state(batch)
    states = torch.cat([torch.eye(4)[begun], torch.eye(4)[to_come]], -1)  # [1, 256, 8]
    heads = SceneHeads(8)
    optimizer = torch.optim.SGD(heads.parameters(), lr=2.0)
    for _ in range(100):
        optimizer.zero_grad()
        sum(state_losses(heads, states, batch)).backward()
        optimizer.step()
    assert sum(state_losses(heads, states, batch)) < 0.2


def test_layers_that_are_read():
    assert read_layers(6) == (2, 3)
    assert read_layers(1) == (1, 1)
