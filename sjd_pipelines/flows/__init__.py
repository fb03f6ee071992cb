"""Solvers of normalizing flows: which tokens a pass recomputes, and when they are settled."""

from diffusers import SchedulerMixin

from .base import FlowSolver
from .calibration import MODES, OBJECTIVES, Calibration, calibrate
from .frontier import FrontierFlowSolver
from .guidance import FlowGuidance
from .jacobi import GaussSeidelJacobiFlowSolver, JacobiFlowSolver
from .loop import FlowRun, invert
from .metrics import ConvergenceMetrics, convergence_metrics
from .noise import normal_noise
from .planned import BLOCK_SOLVERS, PlannedFlowSolver
from .sequential import SequentialFlowSolver
from .state import BlockState, BlockStatistics, FlowOverflowError, FlowStatistics
from .target import FlowTarget

# The names used by the command line and by ComfyUI.
FLOW_SOLVERS: dict[str, type[FlowSolver]] = BLOCK_SOLVERS | {PlannedFlowSolver.name: PlannedFlowSolver}

# diffusers records a component's module and looks its base class up there; one module keeps saved folders loadable.
for _solver in FLOW_SOLVERS.values():
    _solver.__module__ = __name__
del _solver

__all__ = [
    "FLOW_SOLVERS",
    "MODES",
    "OBJECTIVES",
    "BlockState",
    "BlockStatistics",
    "Calibration",
    "ConvergenceMetrics",
    "FlowGuidance",
    "FlowOverflowError",
    "FlowRun",
    "FlowSolver",
    "FlowStatistics",
    "FlowTarget",
    "FrontierFlowSolver",
    "GaussSeidelJacobiFlowSolver",
    "JacobiFlowSolver",
    "PlannedFlowSolver",
    "SchedulerMixin",
    "SequentialFlowSolver",
    "calibrate",
    "convergence_metrics",
    "invert",
    "normal_noise",
]
