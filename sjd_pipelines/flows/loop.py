"""The loop that turns noise into pictures, block by block; pipeline, calibration, trainers and tests call it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .base import FlowSolver
from .state import BlockState, BlockStatistics
from .target import FlowTarget


@dataclass
class FlowRun:
    """A run of `invert`.

    Attributes:
        sample: `[B, T, D]` in raster order: what is left of the noise after the blocks done so far.
        outputs: `[B, T, D]` of every block done, in its own order, first the one next to the noise.
        blocks: what each has cost.
        interrupted: whether `on_pass` has stopped it.
        state: the block in work.
        block: its index, 0 next to the picture.
    """

    sample: torch.Tensor
    outputs: list[torch.Tensor] = field(default_factory=list)
    blocks: list[BlockStatistics] = field(default_factory=list)
    interrupted: bool = False
    state: BlockState | None = None
    block: int = -1

    @property
    def solved(self) -> list[int]:
        """Settled tokens of each picture, over all blocks."""
        before = len(self.blocks) * self.state.num_tokens
        return [before + count for count in self.state.solved]


def invert(
    target: FlowTarget,
    solver: FlowSolver,
    latents: torch.Tensor,
    on_pass: Callable[[FlowRun], bool] | None = None,
) -> FlowRun:
    """Noise to pictures.

    Args:
        target: the flow, with classes and guidance.
        solver: how a block is solved.
        latents: `[B, T, D]` in raster order.
        on_pass: called after each pass; what is true stops the run.

    Raises:
        ValueError: the solver's settings do not fit the flow.
        FlowOverflowError: the picture itself is not finite.
    """
    solver.check(target.num_blocks, target.num_tokens)
    run = FlowRun(latents)
    for block in reversed(range(target.num_blocks)):
        chosen = solver.solver_of(block, target.num_blocks)
        run.block, run.state = block, chosen.begin(block, target.num_blocks, target.order(block, run.sample))
        solve_block(target, chosen, run, on_pass)
        residuals = [value for value in run.state.residual if value is not None]
        run.blocks.append(
            BlockStatistics(
                block,
                chosen.name,
                run.state.passes,
                run.state.row_passes,
                run.state.token_passes,
                max(residuals) if residuals else None,
                run.state.done,
            )
        )
        run.outputs.append(run.state.result if run.state.done else run.state.current())
        run.sample = target.order(block, run.outputs[-1])
        if run.interrupted:
            break
    return run


def solve_block(
    target: FlowTarget, solver: FlowSolver, run: FlowRun, on_pass: Callable[[FlowRun], bool] | None = None
) -> None:
    """Take the block of `run` to its end."""
    target.begin(run.block)
    state = run.state
    while not state.done and not run.interrupted:
        log_scale, shift = target.affine(state.inputs, state.start)
        solver.step(log_scale, shift, state)
        if state.remaining is not None and not state.done:
            target.keep(state.remaining)
            state.remaining = None
        if on_pass is not None and on_pass(run):
            run.interrupted = True
