"""The loop that turns noise into pictures, block by block; pipeline, calibration, trainers and tests call it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .base import FlowSolver
from .state import BlockState, BlockStatistics
from .target import FlowTarget


@dataclass
class FlowWork:
    """A block in work.

    Attributes:
        block: index, 0 next to the picture.
        solver: of this block.
        target: turned to it.
        state: how far it is.
        source: the block that its latents come from, as long as that is not solved.
    """

    block: int
    solver: FlowSolver
    target: FlowTarget
    state: BlockState
    source: "FlowWork | None" = None

    @property
    def output(self) -> torch.Tensor:
        """The pictures as they are now, `[B, T, D]` in the order of the block."""
        return self.state.result if self.state.done else self.state.current()

    @property
    def tokens(self) -> torch.Tensor:
        """`output` in raster order."""
        return self.target.order(self.block, self.output)

    def receive(self) -> None:
        """Take what the block before has made in the last pass."""
        if self.source is not None:
            self.state.receive(self.target.order(self.block, self.source.tokens))
            if self.source.state.done:
                self.source = None

    def advance(self) -> None:
        """One pass."""
        state = self.state
        state.release(set() if self.source is None else self.source.state.unsettled)
        log_scale, shift = self.target.affine(state.inputs, state.start)
        self.solver.step(log_scale, shift, state)
        if state.remaining is not None and not state.done:
            self.target.keep(state.remaining)
            state.remaining = None

    def statistics(self) -> BlockStatistics:
        """What it has cost."""
        state = self.state
        residuals = [value for value in state.residual if value is not None]
        return BlockStatistics(
            self.block,
            self.solver.name,
            state.passes,
            state.row_passes,
            state.token_passes,
            max(residuals) if residuals else None,
            state.done,
        )


@dataclass
class FlowRun:
    """A run of `invert`.

    Attributes:
        sample: `[B, T, D]` in raster order: what is left of the noise after the blocks done so far.
        outputs: `[B, T, D]` of every block done, in its own order, first the one next to the noise.
        blocks: what each has cost.
        passes: serial passes so far; those of blocks that are worked on side by side count once.
        interrupted: whether `on_pass` has stopped it.
        works: the blocks in work, first the one next to the noise.
    """

    sample: torch.Tensor
    outputs: list[torch.Tensor] = field(default_factory=list)
    blocks: list[BlockStatistics] = field(default_factory=list)
    passes: int = 0
    interrupted: bool = False
    works: list[FlowWork] = field(default_factory=list)

    @property
    def state(self) -> BlockState:
        """Of the block in work that is next to the picture."""
        return self.works[-1].state

    @property
    def block(self) -> int:
        """Its index, 0 next to the picture."""
        return self.works[-1].block

    @property
    def solved(self) -> list[int]:
        """Settled tokens of each picture, over all blocks."""
        before = len(self.blocks) * self.state.num_tokens
        return [before + sum(counts) for counts in zip(*(work.state.solved for work in self.works))]

    def pass_over(self, on_pass: "Callable[[FlowRun], bool] | None") -> None:
        """One serial pass: every block in work moves on, from what there was before it."""
        for work in self.works:
            work.receive()
        for work in self.works:
            work.advance()
        self.passes += 1
        if on_pass is not None and on_pass(self):
            self.interrupted = True


def invert(
    target: FlowTarget,
    solver: FlowSolver,
    latents: torch.Tensor,
    on_pass: Callable[[FlowRun], bool] | None = None,
) -> FlowRun:
    """Noise to pictures.

    Blocks that are worked on side by side are evaluated one after the other within a pass; nothing in a pass depends
    on another part of it, so that a device may do them at once.

    Args:
        target: the flow, with classes and guidance.
        solver: how a block is solved.
        latents: `[B, T, D]` in raster order.
        on_pass: called after each serial pass; what is true stops the run.

    Raises:
        ValueError: the solver's settings do not fit the flow.
        FlowOverflowError: the picture itself is not finite.
    """
    solver.check(target.num_blocks, target.num_tokens)
    run, targets = FlowRun(latents), [target]
    waiting = list(range(target.num_blocks))
    while (waiting or run.works) and not run.interrupted:
        chosen = solver.solver_of(waiting[-1], target.num_blocks) if waiting else None
        if chosen and (not run.works or (chosen.follows and run.works[-1].solver.goes_on(run.state))):
            own = targets.pop() if targets else target.twin()
            run.works.append(_begun(own, chosen, waiting.pop(), run))
        run.pass_over(on_pass)
        while run.works and (run.works[0].state.done or run.interrupted):
            targets.append(_close(run))
    return run


def solve_block(
    target: FlowTarget,
    solver: FlowSolver,
    block: int,
    latents: torch.Tensor,
    on_pass: Callable[[FlowRun], bool] | None = None,
) -> FlowRun:
    """Take a single block, `latents` in its own order, to its end; the run has it as `run.state`."""
    target.begin(block)
    work = FlowWork(block, solver, target, solver.begin(block, target.num_blocks, latents))
    run = FlowRun(latents, works=[work])
    while not work.state.done and not run.interrupted:
        run.pass_over(on_pass)
    return run


def _begun(target: FlowTarget, solver: FlowSolver, block: int, run: FlowRun) -> FlowWork:
    """Work on a block, from the output of the one before as it is now."""
    source = run.works[-1] if run.works else None
    tokens = run.sample if source is None else source.tokens
    target.begin(block)
    return FlowWork(block, solver, target, solver.begin(block, target.num_blocks, target.order(block, tokens)), source)


def _close(run: FlowRun) -> FlowTarget:
    """Put the first block in work to those done; returns its target."""
    work = run.works.pop(0)
    run.blocks.append(work.statistics())
    run.outputs.append(work.output)
    run.sample = work.target.order(work.block, run.outputs[-1])
    return work.target
