"""What a run cost."""

from dataclasses import dataclass, field

import torch

from .runner import Execution
from .state import DecodingState


@dataclass
class DecodingStatistics:
    """What a run cost, per image.

    Attributes:
        scheduler: class name of the scheduler.
        label: its label, `exact`, `lossless` or `approximate`.
        seeds: the seed of each image. `pipe(prompt, seeds=[seed], ...)` with the same settings draws it again, alone
            or in any batch; where the scheduler is not exact, at the same window.
        forward_passes: passes until each image was complete, the prompt's not among them.
        committed_per_pass: per image, the tokens each of its passes committed.
        acceptance_map: `[B, rows, width]` int32: the pass that committed each token (-1: none; tail tokens left out).
        seconds: wall clock of the stages `encode`, `decode` and `pixels`, for the whole batch.
        interrupted: whether the run was stopped before every image was complete.
        prompt_passes: forward passes that read the prompt before the first token was made. Libraries and papers count
            such a pass too.
        windows: drafts verified in each pass of the batch, of a raster window. With `window="auto"` they differ, and
            under a lossless scheduler other windows draw another picture of the same seed.
        execution: how passes were executed where they are compiled: passes that were replayed, those of them that are
            not compiled because the compiler failed, graphs recorded, the seconds that took, and the memory of the
            graphs; else None.
    """

    scheduler: str
    label: str
    seeds: list[int]
    forward_passes: list[int]
    committed_per_pass: list[list[int]]
    acceptance_map: torch.Tensor
    seconds: dict[str, float]
    interrupted: bool = False
    prompt_passes: int = 0
    windows: list[int] = field(default_factory=list)
    execution: Execution | None = None

    @classmethod
    def from_state(
        cls,
        state: DecodingState,
        scheduler: str,
        label: str,
        seeds: list[int],
        seconds: dict[str, float],
        prompt_passes: int = 0,
    ) -> "DecodingStatistics":
        accepted_at = state.acceptance_map.cpu()
        passes = (accepted_at.max(-1).values + 1).tolist()
        committed = [
            row[row >= 0].bincount(minlength=count).tolist() for row, count in zip(accepted_at.long(), passes)
        ]
        return cls(
            scheduler=scheduler,
            label=label,
            seeds=list(seeds),
            forward_passes=passes,
            committed_per_pass=committed,
            acceptance_map=state.layout.picture(accepted_at),  # [B, N] -> [B, rows, width]
            seconds=dict(seconds),
            interrupted=not state.finished,
            prompt_passes=prompt_passes,
            windows=list(state.windows),
            execution=state.execution,
        )
