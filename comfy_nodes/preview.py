"""What ComfyUI shows while a picture forms: progress in committed tokens, and now and then the picture itself."""

from time import perf_counter
from typing import Any

import torch

from sjd_pipelines import ImageTokenLayout, SJDAutoRegressivePipeline
from sjd_pipelines.pipelines.pictures import forming_pictures

from .runtime import Model, Progress, check_interrupt

SHARE = 0.05  # of the running time at most goes into previews
LEAST_SECONDS = 1.0  # between two previews


class Watch:
    """A pipeline callback: stops where the user cancelled, moves the bar, shows the first picture of the batch.

    Args:
        model: that draws.
        layout: of its pictures.
        batch_size: pictures at once.
        every: seconds between previews; 0 shows none.
    """

    tensor_inputs = ("canvas", "acceptance_map")

    def __init__(self, model: Model, layout: ImageTokenLayout, batch_size: int, every: float):
        self._model = model
        self._layout = layout
        self._progress = Progress(batch_size * layout.num_tokens)
        self._every = max(every, LEAST_SECONDS) if every else float("inf")
        self._start = self._shown = perf_counter()
        self._spent = 0.0

    def __call__(
        self, pipe: SJDAutoRegressivePipeline, pass_index: int, committed: int, tensors: dict[str, Any]
    ) -> None:
        check_interrupt()
        picture = self._render(tensors["canvas"], tensors["acceptance_map"]) if self._due() else None
        self._progress.update(committed, picture)

    def _due(self) -> bool:
        now = perf_counter()
        working = now - self._start - self._spent
        return now - self._shown >= self._every and self._spent + self._model.render_seconds <= SHARE * working

    def _render(self, canvas: torch.Tensor, acceptance_map: torch.Tensor) -> Any:
        start = perf_counter()
        (picture,) = forming_pictures(self._model.pipe, self._layout, canvas[:1], acceptance_map[:1].cpu() >= 0)
        self._shown = perf_counter()
        self._model.render_seconds = self._shown - start
        self._spent += self._shown - start
        return picture
