"""Packed passes and losses: the laws are those of decoding, what is masked, and what gradients reach."""

import copy
import math

import pytest
import torch

from sjd_pipelines.decoding import PositionNoise, Purpose, Sampling
from sjd_pipelines.distillation.measures import compare_laws
from sjd_pipelines.distillation.objective import Objective, Weights, pick_windows, stray
from sjd_pipelines.distillation.packed import packed_pass
from sjd_pipelines.distillation.trajectories import Trajectory, draw_trajectory

from ..pipelines.tiny import MEMBERS

WINDOW = 5
GUIDED = Sampling(guidance_scale=2.0, top_p=0.95)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_packed_pass_gives_the_laws_of_decoding(name):
    """What each pass chose behind its drafts is what the next pass was fed."""
    member = MEMBERS[name]
    pipe = member.make()
    first, second, _ = member.prompts
    drawn = draw_trajectory(pipe, pipe.prepare_prompts([first, second]), [3, 4], GUIDED, WINDOW)
    layout = pipe.image_layout(None, None)
    count, passes = layout.num_tokens, len(drawn.fronts)
    prompt = pipe.encode_prompt(drawn.prompts, None, True, 1, layout)
    with torch.no_grad():
        hidden = packed_pass(pipe, prompt, layout, drawn.final, drawn.fronts.T, drawn.drafts.movedim(0, 1))
    noise = PositionNoise(drawn.seeds)

    def chosen(states, predicts):
        laws = pipe.prepare_target(prompt, layout, GUIDED, WINDOW + 1).law(
            pipe.guided_logits(states, GUIDED.guidance_scale), predicts
        )
        return (laws / noise.exponential(predicts, Purpose.SAMPLE, layout.vocabulary_size)).argmax(-1)

    positions = torch.arange(count).expand(2, -1)
    assert torch.equal(chosen(hidden.fixed, positions), drawn.final)
    slots = torch.arange(WINDOW)
    predicts = (drawn.fronts.T[..., None] + slots + 1).clamp(max=count - 1).flatten(1)  # [B, T * W]
    choices = chosen(hidden.windows, predicts).unflatten(1, (passes, WINDOW))
    compared = 0
    for row in range(2):
        for index in range(passes - 1):
            front, following = drawn.fronts[index, row], drawn.fronts[index + 1, row]
            for slot in range(WINDOW):
                place = front + slot + 1  # the next pass has the choice as a draft there, unless it is committed
                if place < count and following <= place < min(following + WINDOW, front + WINDOW + 1):
                    assert choices[row, index, slot] == drawn.drafts[index + 1, row, place - following]
                    compared += 1
    assert compared > count / 2


def test_laws_are_compared_on_the_teachers_pictures(teacher):
    drawn = draw_trajectory(teacher, ["a red dog", "car"], [3, 4], GUIDED, WINDOW)
    same = compare_laws(teacher, teacher, drawn)
    assert same["kl"] == 0
    assert 0 < same["entropy"] == same["teacher_entropy"] < math.log(16)
    sharper = copy.deepcopy(teacher.model)
    student = type(teacher)(sharper, teacher.processor, teacher.scheduler)
    with torch.no_grad():
        sharper.model.generation_head.vision_head.weight.mul_(1.3)
    found = compare_laws(teacher, student, drawn)
    assert found["kl"] > 0.001
    assert found["entropy"] < found["teacher_entropy"] == same["entropy"]


def test_the_reverse_loss_is_the_distance_from_the_students_law(teacher):
    """It weighs by what the student would draw; at the teacher it is zero, with no gradient."""
    drawn = draw_trajectory(teacher, ["a red dog", "car"], [3, 4], GUIDED, WINDOW)
    weights = Weights(consistency=0.0, label=0.0, reverse=2.0)
    objective = Objective(teacher, weights)
    batch = pick_windows(drawn, torch.arange(2), 2, objective.free, torch.Generator().manual_seed(0))
    prompt = objective.encode(batch)
    before = objective.teacher(batch, prompt)
    head = teacher.model.model.generation_head.vision_head.weight
    loss, values = objective.loss(batch, prompt, before)
    assert loss.item() == pytest.approx(0, abs=1e-5) == values["reverse_kl"]
    (gradient,) = torch.autograd.grad(loss, head)
    assert gradient.norm() < 1e-4
    with torch.no_grad():
        head.mul_(1.3)
    after = objective.teacher(batch, prompt)
    expected = (after.exp() * (after - before)).sum(-1)[:, objective.free].mean()
    loss, values = objective.loss(batch, prompt, before)
    assert values["reverse_kl"] == pytest.approx(float(expected), rel=1e-4)
    assert loss.item() == pytest.approx(2 * float(expected), rel=1e-4)
    assert values["reverse_kl"] != pytest.approx(values["teacher_kl"], rel=0.01)


def some_passes(passes: int = 400) -> Trajectory:
    """Of two pictures, the first of which has one token 15 times and another one once; all drafts are right."""
    final = torch.stack([torch.full((16,), 7), torch.arange(16)])
    final[0, 5] = 2
    fronts = torch.zeros(passes, 2, dtype=torch.int64)
    drafts = final[:, :WINDOW].expand(passes, -1, -1).clone()
    return Trajectory(["a", "b"], [0, 1], Sampling(), final, final, fronts, drafts)


def test_strays_are_tokens_of_the_picture_each_as_likely():
    drawn = some_passes()
    changed = stray(drawn.final, drawn.drafts, torch.Generator().manual_seed(0))
    assert set(changed[:, 0].unique().tolist()) == {2, 7}
    assert (changed[:, 0] == 2).float().mean() == pytest.approx(0.25, abs=0.04)  # half of half
    assert set(changed[:, 1].unique().tolist()) == set(range(16))
    replaced = (changed[:, 1] != drawn.drafts[:, 1]).float().mean(-1)
    assert (replaced.min(), replaced.max(), float(replaced.mean())) == (0, 1, pytest.approx(15 / 32, abs=0.05))


def test_only_a_share_of_passes_is_led_astray_and_no_forced_token():
    drawn, free = some_passes(), torch.ones(16, dtype=torch.bool)
    free[3] = False
    picked = [
        pick_windows(drawn, torch.tensor([1]), 400, free, torch.Generator().manual_seed(0), share)
        for share in (0.0, 0.4, 1.0)
    ]
    led = [(batch.drafts[0] != drawn.drafts[:, 1]).any(-1).float().mean().item() for batch in picked]
    assert (led[0], led[2] > 0.75) == (0, True)
    assert led[1] == pytest.approx(0.4 * led[2], abs=0.05)
    assert torch.equal((picked[2].drafts[0] == 3).any(0), ~free[:WINDOW])  # the forced token, in its place alone
    assert torch.equal(picked[2].wrong.any(-1)[0], (picked[2].drafts[0] != drawn.drafts[:, 1]).any(-1))
