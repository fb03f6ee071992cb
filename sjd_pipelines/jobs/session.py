"""A loaded model that draws rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..pipelines.families import AUTOREGRESSIVE, FLOW, family_of_pipeline
from . import flow_pictures, token_pictures
from .provenance import Provenance, describe_model
from .rows import SCHEDULER, Row
from .schedulers import describe_scheduler, make_scheduler, name_of

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS: dict[str, ModuleType] = {AUTOREGRESSIVE: token_pictures, FLOW: flow_pictures}


@dataclass(frozen=True)
class Drawn:
    """A picture that has been drawn.

    Attributes:
        row: what was asked for.
        image: the picture.
        provenance: what it takes to draw it again.
        record: what it cost.
        tokens: `[rows * columns]` int64 codebook ids, on the CPU; None of a flow.
    """

    row: Row
    image: "Image"
    provenance: Provenance
    record: dict[str, Any]
    tokens: Any


class Session:
    """A pipeline at work on rows.

    Args:
        pipe: the pipeline.
        model: as it was loaded, for what pictures remember; None is the default bundled model.
    """

    def __init__(self, pipe: Any, model: str | None = None):
        self.pipe = pipe
        self.kind = KINDS[family_of_pipeline(type(pipe).__name__).kind]
        self.model = describe_model(pipe, model)

    def check(self, row: Row) -> None:
        """Raise `ValueError` for a row that this model can't draw."""
        self.kind.check_kind(row)
        self.kind.check(self.pipe, row, self._scheduler(row))

    def draw(self, rows: Sequence[Row], callback: Callable[..., Any] | None = None) -> list[Drawn]:
        """Draw rows that may be drawn together.

        Args:
            rows: of one `Row.drawn_together`, at least one.
            callback: as `callback_on_step_end` of the pipeline.

        Raises:
            ValueError: the model does not take them, or lacks a network that the scheduler needs.
            ArithmeticError: the model gives numbers that are not finite.
        """
        first, scheduler = rows[0], self._scheduler(rows[0])
        sampling = {name: first.settings[name] for name in self.kind.OPTIONS if name in first.settings}
        output = self.kind.call(
            self.pipe,
            rows,
            height=first.height,
            width=first.width,
            seeds=[self._picture_seed(row) for row in rows],
            scheduler=scheduler,
            callback_on_step_end=callback,
            **sampling,
        )
        settings = {**self.pipe.sampling_defaults(), **sampling, SCHEDULER: describe_scheduler(scheduler)}
        tokens = output.tokens.cpu() if "tokens" in output else [None] * len(rows)
        records = self.kind.records(rows, output.statistics, name_of(type(scheduler)))
        return [
            Drawn(row, image, Provenance(self._complete(row, image, settings, record), self.model), record, ids)
            for row, image, record, ids in zip(rows, output.images, records, tokens)
        ]

    def summary(self, record: dict[str, Any]) -> str:
        """What a picture cost, in words."""
        return self.kind.summary(record)

    def _scheduler(self, row: Row) -> Any:
        return make_scheduler(self.pipe.scheduler, row.settings.get(SCHEDULER, {}))

    def _picture_seed(self, row: Row) -> int:
        """The seed of a row's picture: its own, or what a generator of its `seed` gives, as in a call."""
        if row.picture_seed is not None:
            return row.picture_seed
        import torch

        return self.pipe.prepare_seeds([torch.Generator().manual_seed(row.with_seed().seed)], 1)[0]

    @staticmethod
    def _complete(row: Row, image: "Image", settings: dict[str, Any], record: dict[str, Any]) -> Row:
        """The row with nothing left to any default, and with the one seed that is the picture's own."""
        seed = record["picture_seed"]
        width, height = image.size
        return replace(row, seed=None, picture_seed=seed, height=height, width=width, settings=settings)
