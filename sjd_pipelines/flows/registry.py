"""The solvers of flows by name, a line each; like the schedulers, with which they share no name."""

from ..exports import Registry, exports_of

# Name, as plans, the command line and ComfyUI use it -> module of this package and class.
_PLACES = {
    "sequential": "sequential.SequentialFlowSolver",
    "flow-jacobi": "jacobi.JacobiFlowSolver",
    "gauss-seidel-jacobi": "gauss_seidel.GaussSeidelJacobiFlowSolver",
    "frontier": "frontier.FrontierFlowSolver",
    "overlapping": "overlapping.OverlappingFlowSolver",
    "planned": "planned.PlannedFlowSolver",
}
EXPORTS = exports_of(("base.FlowSolver", *_PLACES.values()))  # module -> what the package exports of it
FLOW_SOLVERS = Registry(__package__, _PLACES)
