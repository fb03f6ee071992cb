"""Solvers of normalizing flows: which tokens a pass recomputes, and when they are settled."""

from .base import (
    FlowSolver,
)
from .calibration import (
    MODES,
    OBJECTIVES,
    Calibration,
    calibrate,
)
from .frontier import (
    FrontierFlowSolver,
)
from .gauss_seidel import (
    GaussSeidelJacobiFlowSolver,
)
from .guidance import (
    FlowGuidance,
)
from .jacobi import (
    JacobiFlowSolver,
)
from .loop import (
    FlowRun,
    invert,
)
from .metrics import (
    ConvergenceMetrics,
    convergence_metrics,
)
from .noise import (
    normal_noise,
)
from .overlapping import (
    OverlappingFlowSolver,
)
from .planned import (
    PlannedFlowSolver,
)
from .registry import (
    FLOW_SOLVERS,
)
from .sequential import (
    SequentialFlowSolver,
)
from .state import (
    BlockState,
    BlockStatistics,
    FlowOverflowError,
    FlowStatistics,
)
from .target import (
    FlowTarget,
)

__all__ = [
    "BlockState",
    "BlockStatistics",
    "Calibration",
    "ConvergenceMetrics",
    "FLOW_SOLVERS",
    "FlowGuidance",
    "FlowOverflowError",
    "FlowRun",
    "FlowSolver",
    "FlowStatistics",
    "FlowTarget",
    "FrontierFlowSolver",
    "GaussSeidelJacobiFlowSolver",
    "JacobiFlowSolver",
    "MODES",
    "OBJECTIVES",
    "OverlappingFlowSolver",
    "PlannedFlowSolver",
    "SequentialFlowSolver",
    "calibrate",
    "convergence_metrics",
    "invert",
    "normal_noise",
]
