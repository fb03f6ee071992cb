"""What ComfyUI shows while a picture forms: progress in committed tokens, also in words, and a sketch of it."""

from time import perf_counter
from typing import Any

import torch

from sjd_pipelines import ImageTokenLayout, SJDAutoRegressivePipeline
from sjd_pipelines.pipelines.pictures import sketch

from .runtime import Model, Progress, check_interrupt, show_text

SHARE = 0.02  # of the running time at most goes into previews
LEAST_SECONDS = 0.25  # between two previews, and between two texts


class Watch:
    """A pipeline callback: stops where the user cancelled, moves the bar, shows the first picture of the batch.

    Args:
        model: that draws.
        layout: of its pictures.
        batch_size: pictures at once.
        every: seconds between previews; 0 shows none, 1 shows as many as are nearly free.
        node_id: of the node that the words are written on; None writes none.
        remarks: what stands below them.
    """

    tensor_inputs = ("canvas", "acceptance_map")

    def __init__(
        self,
        model: Model,
        layout: ImageTokenLayout,
        batch_size: int,
        every: float,
        node_id: str | None = None,
        remarks: str = "",
    ):
        self._model = model
        self._layout = layout
        self._batch_size = batch_size
        self._progress = Progress(batch_size * layout.num_tokens)
        self._every = every if every > 1 else LEAST_SECONDS if every else float("inf")
        self._node_id, self._remarks = node_id, remarks
        self._start = self._shown = self._written = perf_counter()
        self._spent = self._last = 0.0

    def __call__(
        self, pipe: SJDAutoRegressivePipeline, pass_index: int, committed: int, tensors: dict[str, Any]
    ) -> None:
        check_interrupt()
        now = perf_counter()
        if now - self._written >= LEAST_SECONDS:
            self._written = now
            self._write(committed, pass_index + 1)
        picture = self._sketch(tensors["canvas"], tensors["acceptance_map"]) if self._due(now) else None
        self._progress.update(committed, picture)

    def finish(self, picture: Any, passes: float, seconds: float) -> None:
        """The picture as it came out, if previews are shown, and what the run took."""
        total = self._layout.num_tokens
        self._progress.update(self._batch_size * total, picture)
        text = f"{total} tokens in {round(passes, 1):g} passes, {total / passes:.1f} per pass, {seconds:.1f} s"
        show_text(self._node_id, "\n".join(filter(None, (text, self._remarks))))

    @property
    def shows_pictures(self) -> bool:
        return self._every < float("inf")

    def _write(self, committed: int, passes: int) -> None:
        per_pass = committed / self._batch_size / passes
        text = f"{committed}/{self._batch_size * self._layout.num_tokens} tokens, {per_pass:.1f} per pass"
        show_text(self._node_id, "\n".join(filter(None, (text, self._remarks))))

    def _due(self, now: float) -> bool:
        working = now - self._start - self._spent
        return now - self._shown >= self._every and self._spent + self._last <= SHARE * working

    def _sketch(self, canvas: torch.Tensor, acceptance_map: torch.Tensor) -> Any:
        start = perf_counter()
        picture = sketch(self._model.patches, self._layout, canvas[:1].cpu(), acceptance_map[:1].cpu() >= 0)[0]
        self._shown = perf_counter()
        self._last = self._shown - start
        self._spent += self._last
        return picture
