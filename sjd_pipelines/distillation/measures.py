"""What distillation has changed: passes, how early tokens are right, distance from the teacher's laws, and entropy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..pipelines import SJDAutoRegressivePipeline
from .objective import Batch, Objective, Weights, kl
from .trajectories import Trajectory, draw_trajectory

EXITS = (1, 2, 4, 8, 16)  # iterations


def exit_agreement(drawn: Trajectory, exits: Sequence[int] = EXITS) -> dict[int, float]:
    """How many tokens are those of the fixed point after k iterations, those committed by then included.

    A token's iterations begin when it enters the window.
    """
    count, window = drawn.final.shape[1], drawn.drafts.shape[-1]
    passes, batch = drawn.fronts.shape
    right = torch.full((passes + 1, batch, count), True)
    entered = torch.full((batch, count), passes)
    for index in range(passes):
        places = drawn.fronts[index][:, None] + torch.arange(window)
        inside = places < count
        places = places.clamp(max=count - 1)
        equal = (drawn.drafts[index] == drawn.final.gather(1, places)) | ~inside
        right[index].scatter_reduce_(1, places, equal, "amin")
        mine = torch.full((batch, count), passes).scatter_reduce_(
            1, places, torch.where(inside, index, passes), "amin"
        )
        entered = entered.minimum(mine)
    agreement = {}
    for iterations in exits:
        at = (entered + iterations).clamp(max=passes)
        agreement[iterations] = float(right.gather(0, at[None])[0].float().mean())
    return agreement


@torch.no_grad()
def measure(pipe: SJDAutoRegressivePipeline, teachers: Sequence[Trajectory], pictures: int) -> dict[str, float]:
    """Draw the last pictures of some trajectories again, with the student.

    Args:
        pipe: the student.
        teachers: what its teacher drew.
        pictures: of each.

    Returns:
        By number of the trajectory: passes of teacher and student, agreement at the exits.
    """
    values = {}
    for number, teacher in enumerate(teachers):
        prompts, seeds = teacher.prompts[-pictures:], teacher.seeds[-pictures:]
        drawn = draw_trajectory(pipe, prompts, seeds, teacher.sampling, teacher.drafts.shape[-1])
        values[f"teacher_passes_{number}"] = float(teacher.passes[-pictures:].float().mean())
        values[f"passes_{number}"] = float(drawn.passes.float().mean())
        values |= {f"exit{k}_{number}": share for k, share in exit_agreement(drawn).items()}
    return values


@torch.no_grad()
def compare_laws(
    teacher: SJDAutoRegressivePipeline, student: SJDAutoRegressivePipeline, drawn: Trajectory
) -> dict[str, float]:
    """How far a student's laws are from its teacher's at every free token of some pictures, not truncated.

    Args:
        teacher: what drew them.
        student: on the same prompts and tokens.
        drawn: the pictures; how they came about is not looked at.

    Returns:
        Means per token in nats: `kl` from the teacher's law to the student's, `entropy` and `teacher_entropy`.
    """
    windows = drawn.fronts[:0].T, drawn.drafts[:0].movedim(0, 1)  # none of them
    wrong = torch.zeros_like(windows[1], dtype=torch.bool)
    batch = Batch(drawn.prompts, drawn.sampling, drawn.seeds, drawn.final, drawn.labels, *windows, wrong)
    laws = []
    for pipe in (teacher, student):
        objective, own = Objective(pipe, Weights()), batch.to(pipe.device)
        laws.append(objective.teacher(own, objective.encode(own))[:, objective.free].cpu())  # [B, free, V]
    before, after = laws
    return {
        "kl": float(kl(before, after).mean()),
        "entropy": float(-(after.exp() * after).sum(-1).mean()),
        "teacher_entropy": float(-(before.exp() * before).sum(-1).mean()),
    }
