"""Where the seconds of the decode loop go: the transformer, networks that draft, and all the rest."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..companions import COMPANIONS
from ..decoding import PositionNoise, decode
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.target import PromptedTarget
from ..schedulers import DecodingScheduler
from .machine import wait_for

TRANSFORMER_CALLS = ("run_transformer", "image_logits")


@dataclass
class LoopSeconds:
    """Seconds of one batch.

    Attributes:
        transformer: of every call into the target's layers and head; a draft model's head is the target's.
        drafting: of every call into a network that drafts.
        loop: of the whole decode loop.
        tokens: `[B, rows * columns]` int64, what was drawn meanwhile.
        passes: of the batch.
    """

    transformer: list[float] = field(default_factory=list)
    drafting: list[float] = field(default_factory=list)
    loop: float = 0.0
    tokens: torch.Tensor | None = None
    passes: int = 0


class Timed:
    """Something some of whose methods are timed; in all else it is itself.

    Args:
        inner: whose methods are called.
        calls: the names of those that are timed.
        device: on which they work.
        taken: where their seconds are added.
    """

    def __init__(self, inner: Any, calls: Sequence[str], device: torch.device, taken: list[float]):
        self._inner, self._calls, self._device, self._taken = inner, calls, device, taken

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._timed(value) if name in self._calls else value

    def __call__(self, *args: Any) -> Any:
        return (self._timed(self._inner) if "__call__" in self._calls else self._inner)(*args)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            wait_for(self._device)
            begin = time.perf_counter()
            result = method(*args)
            wait_for(self._device)
            self._taken.append(time.perf_counter() - begin)
            return result

        return call


@torch.no_grad()
def measure_loop(
    pipe: SJDAutoRegressivePipeline,
    scheduler: DecodingScheduler,
    prompts: Sequence[str],
    seed: int,
    sampling: dict[str, float],
    passes: int | None = None,
) -> LoopSeconds:
    """Draw one picture per prompt, picture i from seed `seed + i`, and time every call into a network on the way.

    To time single calls on a GPU is to slow them down, so that this is no measure of speed.

    Args:
        pipe: any family.
        scheduler: that it is decoded by.
        prompts: B texts.
        seed: of the first picture.
        sampling: `guidance_scale`, `temperature`, `top_k`, `top_p`; the checkpoint decides what is absent.
        passes: after which to stop; None draws whole pictures.
    """
    seconds, device = LoopSeconds(), pipe.device
    settings, layout = pipe.prepare_sampling(**sampling), pipe.image_layout(None, None)
    encoded = pipe.encode_prompt(list(prompts), None, settings.guided, 1, layout)
    model = Timed(pipe, TRANSFORMER_CALLS, device, seconds.transformer)
    target = PromptedTarget(model, encoded, layout, settings, scheduler.margin(layout))
    seconds.transformer.clear()  # the prompt's pass is not the loop's
    companions = {
        name: kind.running(Timed(getattr(pipe, name), kind.calls, device, seconds.drafting), target)
        for name, kind in COMPANIONS.items()
        if name in scheduler.companions
    }
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(prompts))]
    noise = PositionNoise(pipe.prepare_seeds(generators, len(prompts)), device, target.length)
    wait_for(device)
    begin = time.perf_counter()
    state = decode(target, scheduler, noise, companions, lambda state: state.passes == passes)
    wait_for(device)
    seconds.loop = time.perf_counter() - begin
    seconds.tokens, seconds.passes = layout.image_tokens(state.tokens), state.passes
    return seconds
