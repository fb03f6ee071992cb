"""Solvers of normalizing flows: which tokens a pass recomputes, and when they are settled."""

from ..exports import lazy
from .registry import EXPORTS

SOLVER_NAMES = [name for names in EXPORTS.values() for name in names]
SOURCES = {
    ".calibration": ("MODES", "OBJECTIVES", "Calibration", "calibrate"),
    ".guidance": ("FlowGuidance",),
    ".loop": ("FlowRun", "invert"),
    ".metrics": ("ConvergenceMetrics", "convergence_metrics"),
    ".noise": ("normal_noise",),
    ".registry": ("FLOW_SOLVERS",),
    ".state": ("BlockState", "BlockStatistics", "FlowOverflowError", "FlowStatistics"),
    ".target": ("FlowTarget",),
    **EXPORTS,
}

__all__, __getattr__, __dir__ = lazy(__name__, SOURCES)
