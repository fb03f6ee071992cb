"""How many operations a pass takes, by part: each is a kernel, whose launch a GPU with a small model waits for.

Counted are ATen operations that compute or copy, on the way that an accelerator takes; views are free. What is
recorded as one graph is launched at once, so that these numbers are what a captured pass saves.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..decoding import PositionNoise, Sampling, decode
from ..decoding.look import looks
from ..pipelines import SJDAutoRegressivePipeline
from ..schedulers import DecodingScheduler

PARTS = ("transformer", "sampling", "companions", "scheduler")
FIRST = 4  # passes that are left out: networks that draft are silent in the first, and laws differ in the next
PASSES = 16


@dataclass(frozen=True)
class PassOperations:
    """One scheduler.

    Attributes:
        scheduler: its registered name.
        parts: operations of a pass by part, the mean of some passes: embedding, layers, head and guidance; law;
            networks that draft, with what they borrow of the target; and planning, verification and redrafting.
    """

    scheduler: str
    parts: dict[str, float]


class _Counting(TorchDispatchMode):
    """Counts the operations of whichever part is at work."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.part = "scheduler"

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[self.part] += not func.is_view
        return func(*args, **kwargs or {})

    @contextmanager
    def at_work(self, part: str) -> Iterator[None]:
        """A block that belongs to a part; what a companion borrows of the target is the companion's."""
        before = self.part
        self.part = before if before == "companions" else part
        try:
            yield
        finally:
            self.part = before


class _Counted:
    """Something some of whose methods belong to parts; in all else it is itself. `None` stands for all methods."""

    def __init__(self, inner: Any, parts: dict[str | None, str], counting: _Counting):
        self._inner, self._parts, self._counting = inner, parts, counting

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        part = self._parts.get(name, self._parts.get(None))
        return self._counted(value, part) if part is not None and callable(value) else value

    def _counted(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with self._counting.at_work(part):
                result = method(*args)
            return self._counted(result, part) if callable(result) else result  # a reviser returns a function

        return call


@torch.no_grad()
def count_operations(
    pipe: SJDAutoRegressivePipeline,
    schedulers: dict[str, DecodingScheduler],
    prompts: Sequence[str],
    sampling: Sampling,
) -> list[PassOperations]:
    """Count the operations of passes in the middle of a picture.

    Args:
        pipe: any family.
        schedulers: by name.
        prompts: one picture of each.
        sampling: how tokens are sampled.
    """
    return [_count(pipe, name, scheduler, prompts, sampling) for name, scheduler in schedulers.items()]


def _count(
    pipe: SJDAutoRegressivePipeline,
    name: str,
    scheduler: DecodingScheduler,
    prompts: Sequence[str],
    sampling: Sampling,
) -> PassOperations:
    layout = pipe.image_layout(None, None)
    encoded = pipe.encode_prompt(list(prompts), None, sampling.guided, 1)
    inner = pipe.prepare_target(encoded, layout, sampling, scheduler.margin(layout))
    counting = _Counting()
    companions = {
        name: _Counted(companion, {None: "companions"}, counting)
        for name, companion in pipe.prepare_companions(scheduler, inner).items()
    }
    target = _Counted(inner, {"run": "transformer", "law": "sampling"}, counting)
    noise = PositionNoise(list(range(len(prompts))), inner.device, inner.length)

    def on_pass(state: Any) -> bool:
        if state.passes == FIRST:
            counting.counts.clear()
        return state.passes == FIRST + PASSES

    with looks(free=False), counting:
        state = decode(target, scheduler, noise, companions, on_pass)
    passes = state.passes - FIRST
    return PassOperations(name, {part: counting.counts[part] / passes for part in PARTS})
