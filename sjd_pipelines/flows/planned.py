"""A solver of its own for every block, as `calibrate` chooses them."""

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config

from .base import FlowSolver
from .frontier import FrontierFlowSolver
from .jacobi import GaussSeidelJacobiFlowSolver, JacobiFlowSolver
from .sequential import SequentialFlowSolver
from .state import BlockState

BLOCK_SOLVERS: dict[str, type[FlowSolver]] = {
    cls.name: cls for cls in (SequentialFlowSolver, JacobiFlowSolver, GaussSeidelJacobiFlowSolver, FrontierFlowSolver)
}


class PlannedFlowSolver(FlowSolver):
    """One solver per block.

    Args:
        plan: in the order of sampling, the block next to the noise first: `{"solver": name, setting: value, ...}`.
            None leaves the plan to be made.
        measured: what calibration found: `error` against sequential sampling on fresh noise, in units of the root
            mean square of a picture's tokens, and for which `batch_size`, `guidance` and `objective`.
    """

    name = "planned"
    paper = "this package"

    @register_to_config
    def __init__(self, plan: list[dict[str, Any]] | None = None, measured: dict[str, Any] | None = None):
        self.solvers = [block_solver(entry) for entry in plan or ()]

    @property
    def label(self) -> str:
        return "exact" if all(solver.label == "exact" for solver in self.solvers) else "approximate"

    @property
    def error(self) -> float | None:
        return (self.config.measured or {}).get("error")

    def check(self, num_blocks: int, num_tokens: int) -> None:
        if len(self.solvers) != num_blocks:
            raise ValueError(
                f"The plan has {len(self.solvers)} blocks; this flow has {num_blocks}. Make one with calibrate()."
            )
        for solver in self.solvers:
            solver.check(num_blocks, num_tokens)

    def solver_of(self, block: int, num_blocks: int) -> FlowSolver:
        return self.solvers[num_blocks - 1 - block]

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        return self.solver_of(block, num_blocks).begin(block, num_blocks, latents)

    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        raise NotImplementedError("A plan shares its blocks out; step the solver_of(block).")


def block_solver(entry: dict[str, Any]) -> FlowSolver:
    """The solver of one entry of a plan. Raises `ValueError` for a name or a setting that is not one."""
    settings = dict(entry)
    name = settings.pop("solver", None)
    if name not in BLOCK_SOLVERS:
        raise ValueError(f"A plan's solver must be one of {', '.join(BLOCK_SOLVERS)}; got {name!r}.")
    try:
        return BLOCK_SOLVERS[name](**settings)
    except TypeError as error:
        raise ValueError(f"{name} has no such setting: {error}.") from error
