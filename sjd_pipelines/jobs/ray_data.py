"""Workers as actors of a Ray cluster, by Ray Data. The folder of the job must be one that all nodes share.

Ray Data hands out the work; what is done is told by the folder alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..disk import TEMPORARY
from .batches import Batch
from .folder import JobError, JobFolder, told
from .work import Outcome, Work, Worker, settle_process

MOST_BLOCKS = 10_000  # units that Ray Data hands out


class Actors:
    """A pool of actors, with a model each.

    Args:
        work: what they are told.
        count: how many there are.
        address: of the cluster, as `ray.init` takes it: `auto`, `local`, `ray://HOST:PORT`.

    Raises:
        JobError: Ray is not installed, or not there.
    """

    def __init__(self, work: Work, count: int, address: str):
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise JobError('--ray needs Ray Data: pip install "sjd-pipelines[ray]".') from error
        self.work, self.count, self._ray = work, count, ray
        if not ray.is_initialized():
            try:
                ray.init(address=address, logging_level="ERROR")
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                raise JobError(f"there is no Ray cluster at {address}: {str(error).splitlines()[0]}") from error

    def draw(self, batches: Iterable[Batch]) -> Iterator[Outcome]:
        """Draw and write batches; what became of each comes as it ends.

        Raises:
            JobError: Ray gives up.
        """
        plan = self.work.folder / f"{TEMPORARY}plan.txt"
        with told(), plan.open("w", encoding="utf-8") as file:
            lines = sum(1 for batch in batches if file.write(f"{batch.to_text()}\n"))
        if not lines:
            return
        data = self._ray.data
        data.DataContext.get_current().enable_progress_bars = False
        # One batch to a block as far as may be: what has ended is told block by block.
        # Reading asks for no processor: the actors may have them all.
        planned = data.read_text(str(plan), override_num_blocks=min(lines, MOST_BLOCKS), num_cpus=0)
        drawn = planned.map_batches(
            RayWorker,
            fn_constructor_args=(self.work,),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=self.count),
            num_cpus=self.work.threads,
            num_gpus=1 if self._on_gpus() else 0,
        )
        try:
            for row in drawn.iter_rows():
                yield Outcome(row["drawn"], row["failed"], row["stopped"] or None, tuple(row["notices"].splitlines()))
        except self._ray.exceptions.RayError as error:
            raise JobError(f"Ray gave up: {str(error).splitlines()[0]}") from error

    def _on_gpus(self) -> bool:
        device = self.work.device
        return device.startswith("cuda") if device else self._ray.cluster_resources().get("GPU", 0) > 0


class RayWorker:
    """A worker as Ray Data calls it. Ray shows an actor its own GPU alone."""

    def __init__(self, work: Work):
        settle_process(work)
        self.folder = JobFolder(work.folder)
        try:
            self.worker, self.refusal = Worker(work), ""
        except JobError as error:
            self.refusal = str(error)

    def __call__(self, lines: dict[str, Any]) -> dict[str, list[Any]]:
        outcomes = [self._draw(str(line)) for line in lines["text"]]
        return {
            "drawn": [outcome.drawn for outcome in outcomes],
            "failed": [outcome.failed for outcome in outcomes],
            "stopped": [outcome.stopped or "" for outcome in outcomes],
            "notices": ["\n".join(outcome.notices) for outcome in outcomes],
        }

    def _draw(self, line: str) -> Outcome:
        if self.refusal:
            return Outcome(stopped=self.refusal)
        batch = Batch.from_text(line)
        rows = tuple(replace(row, path=self.folder.picture(row)) for row in batch.rows)
        return self.worker.draw(replace(batch, rows=rows))
