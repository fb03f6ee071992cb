"""What a pipeline of flows measures of its model: plans, and solvers that are fitted to it."""

from collections.abc import Callable

import torch

from ..flows import Calibration, FlowTarget, OverlappingFlowSolver, SequentialFlowSolver, calibrate
from ..flows.side_by_side import FIRST_FITTED, FITTED, fitted_solver
from ..ranges import shown
from . import inputs
from .room import check_room
from .runs import running


class FlowCalibration:
    """`calibrate` and `fit` of `TarFlowPipeline`."""

    def calibrate(
        self,
        prompt: str | int | list[str] | list[int] | None = None,
        mode: str = "safe",
        objective: str = "seconds",
        batch_size: int = 1,
        references: int = 8,
        guidance_scale: float | None = None,
        on_block: Callable[..., None] | None = None,
        fitted: OverlappingFlowSolver | None = None,
    ) -> Calibration:
        """Find the cheapest solver of every block on this device; `pipe.scheduler = calibration.solver` takes it.

        A plan depends on weights, guidance, device and batch size.

        Args:
            prompt: classes to measure with, in turn; None is all the model knows.
            mode: `exact` (error against sequential sampling up to 1e-6), `safe` (1e-3) or `fast` (1e-2).
            objective: what to save, `seconds` or serial `passes`.
            batch_size: pictures that will be drawn at once.
            references: pictures to measure on; three times as many fresh ones verify the plan.
            guidance_scale: None is the model's default.
            on_block: called with the index of each block and its trials.
            fitted: what `fit` returned for this guidance, so that several calibrations share it; None fits anew.

        Raises:
            ValueError: bad input.
            FlowOverflowError: the flow leaves the range of numbers.
        """
        batch_size = inputs.AT_ONCE.check("batch_size", batch_size)
        references = inputs.COUNT.check("references", references)
        guidance = self.prepare_guidance(guidance_scale, None, None, None)
        classes = self.transformer.config.num_classes
        known = list(range(classes)) if prompt is None and classes else self.prepare_labels(prompt, 1)

        def target_of(index: int) -> FlowTarget:
            return self.target([known[(index * batch_size + row) % len(known)] for row in range(batch_size)], guidance)

        def noise_of(first: int, count: int) -> torch.Tensor:
            return self.prepare_latents(list(range(first, first + count)))

        if on_block is not None and not callable(on_block):
            raise ValueError(f"on_block must be a function, got {shown(on_block)}.")
        if fitted is not None:
            _check_fitted(fitted, len(self.transformer.blocks), self.transformer.num_tokens)

        def fit() -> OverlappingFlowSolver:
            return self.fit(guidance_scale) if fitted is None else fitted

        with running(self, guidance.scale):
            return calibrate(target_of, noise_of, fit, mode, objective, batch_size, references, on_block)

    def fit(self, guidance_scale: float | None = None) -> OverlappingFlowSolver:
        """An overlapping solver whose guesses and corrections are fitted to this model, exact by its settings.

        Args:
            guidance_scale: None is the model's default.

        Raises:
            ValueError: bad input.
            FlowOverflowError: the flow leaves the range of numbers.
        """
        guidance = self.prepare_guidance(guidance_scale, None, None, None)
        classes = self.transformer.config.num_classes
        check_room(FITTED * self.picture_bytes(guidance, SequentialFlowSolver()), self._execution_device, FITTED)
        labels = [index % classes if classes else -1 for index in range(FITTED)]
        seeds = list(range(FIRST_FITTED, FIRST_FITTED + FITTED))
        with running(self, guidance.scale):
            return fitted_solver(self.target(labels, guidance), self.prepare_latents(seeds))


def _check_fitted(fitted: object, num_blocks: int, num_tokens: int) -> None:
    """Raise `ValueError` for what `fit` has not made, or of another flow."""
    if not isinstance(fitted, OverlappingFlowSolver):
        raise ValueError(f"fitted must be what fit() returned, or None; got {shown(fitted)}.")
    fitted.check(num_blocks, num_tokens)
