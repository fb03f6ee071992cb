"""One node per solver of flows, each with that solver's settings alone; made from what solvers declare."""

from typing import Any, ClassVar

from comfy_api.latest import io

from sjd_pipelines import FLOW_SOLVERS
from sjd_pipelines.pipelines.graphs import solver_id, values_of

from .labels import flow_promise
from .schema import schema
from .settings import inputs_of, refuse
from .types import Solver, SolverType


class SolverNode(io.ComfyNode):
    """Base of the solver nodes."""

    solver: ClassVar[str]

    @classmethod
    def define_schema(cls) -> io.Schema:
        solver = FLOW_SOLVERS[cls.solver]
        words = flow_promise(solver)
        return schema(
            node_id=solver_id(solver),
            display_name=f"SJD Solver: {solver.card.title}",
            category="SJD/solvers",
            description=f"{solver.card.summary} {words} ({solver.paper})",
            search_aliases=[cls.solver, solver.__name__, "TarFlow", "normalizing flow"],
            inputs=inputs_of(solver),
            outputs=[
                SolverType.Output(
                    "SOLVER", display_name="solver", tooltip=f"For the solver input of SJD Flow Sampler. {words}"
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, **settings: Any) -> bool:
        refuse(FLOW_SOLVERS[cls.solver], settings)  # raised, as of decoders
        return True

    @classmethod
    def execute(cls, **settings: Any) -> io.NodeOutput:
        solver = Solver(cls.solver, values_of(FLOW_SOLVERS[cls.solver], settings))
        solver.make()  # a bad value is told here, on the node that has it
        return io.NodeOutput(solver)


SOLVER_NODES: list[type[io.ComfyNode]] = [
    type(solver_id(solver), (SolverNode,), {"solver": name, "__module__": __name__, "__doc__": solver.card.summary})
    for name, solver in FLOW_SOLVERS.items()
]
