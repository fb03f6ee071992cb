"""A solver of its own for every block, as `calibrate` chooses them."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import Card, Setting, settings_of
from ..ranges import Range, shown
from .base import FlowSolver
from .registry import FLOW_SOLVERS
from .state import BlockState

_ENTRY = r"[a-z-]{1,40}( +\w+=[^\s;=]+)*"
Plan = Annotated[
    str | None,
    Setting(
        "The solver of each block with its settings, the first to be solved first, separated by semicolons. Made by "
        "calibration for one model, guidance and device.",
        form=rf"\s*{_ENTRY}\s*(;\s*{_ENTRY}\s*)*",
        example="frontier tolerance=0.003 start=zeros; sequential",
    ),
]
_ERROR = Range(0)


class PlannedFlowSolver(FlowSolver):
    """One solver per block.

    Args:
        plan: in the order of sampling, the block next to the noise first, such as
            `frontier tolerance=0.003 start=zeros; sequential`. None leaves the plan to be made.
        measured: what calibration found: `error` against sequential sampling on fresh noise, in units of the root
            mean square of a picture's tokens, for which `plan`, under which `conditions`, for which `batch_size` and
            `objective`. A record, not a setting: of another plan, model, number format or guidance it says nothing.
    """

    claim = "that of its solvers; the error is measured"
    paper = "this package"
    card = Card(
        "Planned",
        "Gives every block the solver that calibration found cheapest under an error that you allow. The fewest "
        "passes of all, or the fewest seconds.",
        "Connect or name the plan that calibration made for this model and device; without one it draws nothing.",
    )

    @register_to_config
    def __init__(self, *, plan: Plan = None, measured: dict[str, Any] | None = None):
        check_record(measured)
        self.solvers = [] if plan is None else [solver_of_entry(entry) for entry in plan.split(";")]

    @property
    def label(self) -> str:
        exact = bool(self.solvers) and all(solver.label == "exact" for solver in self.solvers)
        return "exact" if exact else "approximate"

    def error_at(self, conditions: dict[str, Any]) -> float | None:
        return measured_error(self, conditions)

    def check(self, num_blocks: int, num_tokens: int) -> None:
        if len(self.solvers) != num_blocks:
            raise ValueError(
                f"The plan has {len(self.solvers)} blocks; this flow has {num_blocks}. Make one with calibrate()."
            )
        for solver in self.solvers:
            solver.check(num_blocks, num_tokens)

    def most_at_once(self, num_blocks: int) -> int:
        longest = present = 1
        for before, solver in pairwise(self.solvers):
            present = present + 1 if solver.follows and before.most_at_once(num_blocks) > 1 else 1
            longest = max(longest, present)
        return longest

    def solver_of(self, block: int, num_blocks: int) -> FlowSolver:
        return self.solvers[num_blocks - 1 - block]

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        return self.solver_of(block, num_blocks).begin(block, num_blocks, latents)

    def step(self, log_scale: torch.Tensor, shift: torch.Tensor, state: BlockState) -> BlockState:
        raise NotImplementedError("A plan shares its blocks out; step the solver_of(block).")


def solver_of_entry(entry: str) -> FlowSolver:
    """The solver of one entry of a plan, `name setting=value ...`.

    Raises:
        ValueError: a name, a setting or a value is not one.
    """
    name, *assignments = entry.split()
    cls = FLOW_SOLVERS.get(name)
    if cls is None or cls is PlannedFlowSolver:
        known = ", ".join(one for one in FLOW_SOLVERS if FLOW_SOLVERS[one] is not PlannedFlowSolver)
        raise ValueError(f"plan: a solver must be one of {known}; got {name!r}.")
    settings = {}
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        if key not in settings_of(cls):
            raise ValueError(f"plan: {name} has no setting {key!r}; it has {', '.join(settings_of(cls)) or 'none'}.")
        settings[key] = settings_of(cls)[key].read(text)
    try:
        return cls(**settings)
    except ValueError as error:
        raise ValueError(f"plan: {name}: {error}") from error


def entry_of(solver: FlowSolver) -> str:
    """The reverse of `solver_of_entry`: the settings that differ from their defaults."""
    settings = {
        name: solver.config[name]
        for name, setting in settings_of(type(solver)).items()
        if solver.config[name] != setting.default
    }
    return " ".join([solver.name, *(f"{name}={value}" for name, value in settings.items())])


def text_of(solver: FlowSolver) -> str | None:
    """What a solver is called in records: its plan, or its entry in one."""
    return solver.config.plan if isinstance(solver, PlannedFlowSolver) else entry_of(solver)


def check_record(measured: Any) -> None:
    """Raise `ValueError` for what calibration has not written."""
    if measured is not None and not (isinstance(measured, Mapping) and _ERROR.takes(measured.get("error"))):
        raise ValueError(f"measured must be the record that calibrate() made, or None; got {shown(measured)}.")


def measured_error(solver: FlowSolver, conditions: dict[str, Any]) -> float | None:
    """What calibration measured, if it was of these very settings, and under these conditions."""
    measured = solver.config.measured or {}
    known = (measured.get("plan"), measured.get("conditions")) == (text_of(solver), conditions)
    return measured["error"] if known else None
