"""Pictures that are drawn again, by what their PNG remembers or by the graph that ComfyUI wrote into it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..bundled import BUNDLED
from ..disk import expanded
from ..pipelines.graphs import pictures_of
from ..schedulers import DecodingScheduler
from ..schedulers.declaration import AUTO
from .provenance import KEY, Provenance, read_chunks
from .rows import SCHEDULER, Row
from .schedulers import make_scheduler
from .session import Drawn, Session
from .work import load

GRAPH, PAGE_GRAPH = "prompt", "workflow"  # chunks of ComfyUI: what its server ran, and what its page shows
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class Remembered:
    """What a file says of how it was drawn.

    Attributes:
        path: the file.
        rows: the pictures; of a graph all that it draws, since it does not say which of them the file holds.
        model: what loads the model; None where it is a folder, of which only `name` is known.
        name: of the model.
        dtype: name of the number format of its weights.
        provenance: of a picture of this package; None of a graph, which knows nothing of weights.
        parallel_rows: the pictures of a graph whose model makes tokens in groups; what a preset stands for differs.
    """

    path: Path
    rows: tuple[Row, ...]
    model: str | None
    name: str
    dtype: str
    provenance: Provenance | None = None
    parallel_rows: tuple[Row, ...] = ()

    def rows_for(self, pipe: Any) -> tuple[Row, ...]:
        """The pictures as a pipeline draws them again, token for token.

        Raises:
            ValueError: it does not.
        """
        parallel = isinstance(pipe.scheduler, DecodingScheduler) and pipe.scheduler.parallel
        rows = (parallel and self.parallel_rows) or self.rows
        try:
            if self.provenance is not None:
                self.provenance.check_weights(pipe)
            for row in rows:
                _check_windows(pipe, row)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        return rows


def read_picture(path: str | Path) -> Remembered:
    """What a PNG says of how it was drawn.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is of a user that there is not.
        ValueError: it is no PNG, is damaged, or says nothing that can be drawn.
    """
    path = expanded(path)
    chunks = read_chunks(path)
    try:
        if KEY in chunks:
            found = Provenance.from_text(chunks[KEY])
            return Remembered(path, (found.row,), found.source, found.model["name"], found.model["dtype"], found)
        if GRAPH in chunks:
            return _of_graph(path, chunks[GRAPH])
        if PAGE_GRAPH in chunks:
            raise ValueError(f"it holds the graph of ComfyUI's page alone ({PAGE_GRAPH}), not what ran ({GRAPH}).")
        raise ValueError(f"it does not say how it was drawn: it has no text chunk {KEY} or {GRAPH}.")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def draw_again(picture: str | Path, pipe: Any = None, model: str | Path | None = None) -> list[Drawn]:
    """Draw a picture again, token for token, by what is written in its PNG.

    Args:
        picture: a PNG of `sjd generate`, `sjd draw` or ComfyUI.
        pipe: draws it, if it has the same weights; None loads the model that the picture names.
        model: where that model is, if the picture was drawn by one in a folder.

    Returns:
        The picture; where ComfyUI drew a batch, all of it.

    Raises:
        FileNotFoundError: there is no such picture.
        OSError: the model is not there.
        ValueError: the file does not say how it was drawn, or these are not the weights that drew it.
    """
    remembered = read_picture(picture)
    source = model or remembered.model
    if pipe is None and source is None:
        raise ValueError(f"{remembered.path} was drawn by a model in a folder, {remembered.name}; say where it is.")
    pipe = load(source, remembered.dtype) if pipe is None else pipe
    rows, session = remembered.rows_for(pipe), Session(pipe, source)
    return [drawn for row in rows for drawn in session.draw([row])]


def _check_windows(pipe: Any, row: Row) -> None:
    """Which windows a run had is not known where speed chose them; to exact schedulers it does not matter."""
    scheduler = make_scheduler(pipe.scheduler, row.settings.get(SCHEDULER, {}))
    if scheduler.config.get("window") != AUTO:
        return
    temperature = pipe.sampling_defaults()["temperature"]
    if scheduler.label_at(row.settings.get("temperature", temperature)) != "exact":
        raise ValueError("it was drawn with window auto by a scheduler that is not exact: it can't be drawn again.")


def _of_graph(path: Path, text: str) -> Remembered:
    try:
        graph = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("the graph in it is damaged.") from error
    pictures, in_groups = pictures_of(graph), pictures_of(graph, parallel=True)
    names, dtypes = {one.model for one in pictures}, {one.dtype for one in pictures}
    if len(names) > 1 or len(dtypes) > 1:
        raise ValueError(f"the graph in it draws with several models: {', '.join(sorted(names | dtypes))}.")
    (name,), (dtype,) = names, dtypes
    rows, parallel_rows = (
        tuple(_row(one.columns, number) for number, one in enumerate(found, 1)) for found in (pictures, in_groups)
    )
    source, dtype = name if name in BUNDLED else None, _DTYPES.get(dtype, "float32")
    return Remembered(path, rows, source, name, dtype, parallel_rows=parallel_rows)


def _row(columns: Any, number: int) -> Row:
    """ComfyUI's seeds go further than this package's."""
    given = dict(columns)
    seed = given.pop("seed")
    return replace(Row.of(given, number), seed=seed)
