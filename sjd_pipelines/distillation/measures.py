"""What distillation has changed: passes, how early tokens are right, distance from the teacher's laws, and entropy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..pipelines import SJDAutoRegressivePipeline
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
