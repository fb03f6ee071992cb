"""What GS-Jacobi (Liu & Qin 2025, arXiv 2505.12849) chooses its strategies by: CRM and IGM of every block."""

from dataclasses import dataclass

import torch

from ..models.tarflow import TarFlowTransformer2DModel
from .base import STARTS

DOMINANT = 2.0  # times the median CRM from which a block is cut into segments; gives all four published choices
SEGMENTS = 8


@dataclass(frozen=True)
class ConvergenceMetrics:
    """Numbers of each block, the one next to the picture first.

    Attributes:
        crm: convergence ranking metric, percent of the sum over blocks: the higher, the slower.
        igm: initial guessing metric by name of the start: how far one Jacobi pass from there ends from the solution.
    """

    crm: list[float]
    igm: list[dict[str, float]]

    @property
    def dominant(self) -> list[int]:
        """Blocks that the paper's published strategies would cut into segments."""
        median = float(torch.tensor(self.crm).median())
        blocks = [block for block, share in enumerate(self.crm) if share > DOMINANT * median]
        return blocks or [max(range(len(self.crm)), key=self.crm.__getitem__)]

    def strategy(self, num_tokens: int) -> str:
        """A strategy string in the manner of the published ones, whose counts were found by hand."""
        segments = SEGMENTS
        while num_tokens % segments:
            segments -= 1
        length = num_tokens // segments
        # 32 passes for segments of 128 tokens; 10 for whole blocks of 1024, 6 for 256
        passes, others = max(1, length // 4), max(1, round(num_tokens ** (1 / 3)))
        stack = "/".join(str(block) for block in self.dominant)
        return f"{stack}-{segments}-{passes}-{others}"

    def starts(self) -> str:
        """The better start of each block by IGM, as `GaussSeidelJacobiFlowSolver` takes them: `0/1/0/0`."""
        return "/".join(str(STARTS.index(min(values, key=values.get))) for values in reversed(self.igm))


@torch.no_grad()
def convergence_metrics(
    model: TarFlowTransformer2DModel, pixels: torch.Tensor, labels: torch.Tensor | None = None
) -> ConvergenceMetrics:
    """CRM and IGM over a batch of pictures with noise on them.

    Args:
        model: the flow.
        pixels: `[B, channels, S, S]`; the paper takes 1000 pictures.
        labels: `[B]` int64; None, as in the paper, is the mean of all classes.
    """
    inputs = model.encode(pixels, labels).inputs
    crm, igm = [], []
    for block, solution in enumerate(inputs):
        condition = model.condition(block, labels, len(solution))
        log_scale, shift = model.affine(block, solution[:, :-1], condition)
        latents = torch.cat([solution[:, :1], (solution[:, 1:] - shift) * torch.exp(-log_scale)], 1)
        scaled = torch.cat([solution[:, :1], solution[:, 1:] * torch.exp(-log_scale)], 1)
        halves = model.blocks[block].proj_out.weight.to(scaled.dtype).chunk(2)  # of log scale and shift
        norms = [torch.linalg.matrix_norm(matrix, 2) for matrix in (scaled.mean(0), *halves)]
        crm.append(float(norms[0] * norms[1] + norms[2]))
        guesses = dict(zip(STARTS, (latents, torch.zeros_like(latents))))
        igm.append(
            {name: _distance(model, block, condition, guess, latents, solution) for name, guess in guesses.items()}
        )
    total = sum(crm)
    return ConvergenceMetrics([100 * value / total for value in crm], igm)


def _distance(
    model: TarFlowTransformer2DModel,
    block: int,
    condition: torch.Tensor | None,
    guess: torch.Tensor,
    latents: torch.Tensor,
    solution: torch.Tensor,
) -> float:
    """Spectral norm of the mean difference between one Jacobi pass from a guess and the solution."""
    log_scale, shift = model.affine(block, guess[:, :-1], condition)
    iterate = torch.cat([latents[:, :1], latents[:, 1:] * log_scale.exp() + shift], 1)
    return float(torch.linalg.matrix_norm((iterate - solution).mean(0), 2))
