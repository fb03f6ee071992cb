"""What a scheduler itself costs: seconds of `plan` and `step` on synthetic laws, with no model in between."""

import time
from dataclasses import dataclass
from itertools import count
from statistics import mean, median

import torch

from ..companions import COMPANIONS
from ..companions.base import Laws
from ..decoding import DecodingState, ImageTokenLayout, Memory, PositionNoise, Query, Sampling, TargetPass, decode
from ..schedulers import SCHEDULERS, DecodingScheduler
from .machine import wait_for

PARALLEL = 4  # tokens at once, of a scheduler of such models
_BANKS = 3  # laws of a position that take turns: drafts are verified by another law than the one they were drawn from


@dataclass(frozen=True)
class StepCost:
    """Cost of one scheduler.

    Attributes:
        name: as registered.
        label: `exact`, `lossless` or `approximate`.
        window: its setting of that name, 0 without one.
        slots: mean slots of a query.
        tokens: mean tokens an image gains per pass.
        plan: median seconds of `plan`; what a draft model itself takes is not in it.
        step: median seconds of `step`, with the copy of the counts to the host.
        codebook: seconds until the acceptance rule knows the codebook, once per model; 0 where it is not used.
    """

    name: str
    label: str
    window: int
    slots: float
    tokens: float
    plan: float
    step: float
    codebook: float


@torch.no_grad()
def measure_step_costs(
    names: list[str] | None = None,
    window: int = 64,
    codebook_size: int = 16384,
    batch_size: int = 4,
    side: int = 24,
    passes: int = 20,
    change: float = 0.3,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[StepCost]:
    """Run schedulers on laws that change a little from pass to pass.

    Args:
        names: which of `SCHEDULERS`; None is all.
        window: drafts per pass, for schedulers that have such a setting.
        codebook_size: V.
        batch_size: B.
        side: rows and columns of the token grid.
        passes: passes that are timed, after one that is not.
        change: standard deviation of what the logits of a position change by; they themselves have deviation 1.
        seed: of laws, codebook and noise.
        device: where the tensors are.
    """
    device = torch.device(device)
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(codebook_size, 8, generator=generator).to(device)
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    logits = torch.randn(codebook_size, generator=generator)
    costs = []
    for name in names or list(SCHEDULERS):
        cls = SCHEDULERS[name]
        scheduler = cls(window=window) if "window" in cls().config else cls()
        generator.manual_seed(seed)
        layout = ImageTokenLayout.in_regions(side, side, codebook_size, PARALLEL if cls.parallel else 1)
        laws = _Laws(logits, change, generator, device)
        target = _SyntheticTarget(layout, scheduler.margin(layout), batch_size, laws, vectors)
        costs.append(_measure(name, scheduler, target, passes))
    return costs


class _Laws:
    """Laws `[B, Q, V]` by pass, made when a longer query than before asks for them."""

    def __init__(self, logits: torch.Tensor, change: float, generator: torch.Generator, device: torch.device):
        self.logits, self.change, self.generator, self.device = logits, change, generator, device
        self.banks: list[torch.Tensor] = []

    def __call__(self, index: int, batch_size: int, slots: int) -> torch.Tensor:
        if not self.banks or self.banks[0].shape[1] < slots:
            self.banks = [
                torch.randn(batch_size, slots, len(self.logits), generator=self.generator)
                .mul_(self.change)
                .add_(self.logits)
                .softmax(-1)
                .to(self.device)
                for _ in range(_BANKS)
            ]
        return self.banks[index % _BANKS][:, :slots]

    def in_turn(self) -> Laws:
        """Laws as near to the target's as those of earlier passes, for a companion's stand-in."""
        calls = count(1)
        return lambda batch_size, slots: self(next(calls), batch_size, slots)


class _SyntheticTarget:
    """A target whose laws come from a table, and that notes when it was asked for them, and for its codebook."""

    def __init__(self, layout: ImageTokenLayout, margin: int, batch_size: int, laws: _Laws, vectors: torch.Tensor):
        self.layout, self.batch_size, self.device, self.laws_at = layout, batch_size, laws.device, laws
        self.length, self.vectors = layout.num_tokens + margin, vectors
        self.sampling, self.memory, self.runner = Sampling(), Memory(), None
        self.calls, self.begin, self.end, self.asked = 0, 0.0, 0.0, None

    def codebook(self) -> torch.Tensor:
        wait_for(self.device)
        self.asked = time.perf_counter()
        return self.vectors

    def run(self, query: Query) -> TargetPass:
        wait_for(self.device)
        self.begin = time.perf_counter()
        laws = self.laws_at(self.calls, *query.positions.shape)
        self.calls += 1
        return TargetPass(query, laws[..., :0], laws)

    def law(self, logits: torch.Tensor, predicts: torch.Tensor) -> torch.Tensor:
        wait_for(self.device)
        self.end = time.perf_counter()
        return logits


class _Stopwatch:
    """Called after each pass: how long its parts took. Ends a run after `passes` passes, one more not being timed."""

    def __init__(self, target: _SyntheticTarget, passes: int):
        self.target, self.left = target, passes + 1
        self.plans, self.steps, self.slots, self.tokens = [], [], [], []
        self.start()

    def start(self) -> None:
        wait_for(self.target.device)
        self.begin = time.perf_counter()

    def observe(self, seen: TargetPass) -> None:
        self.slots.append(seen.query.positions.shape[1])

    def __call__(self, state: DecodingState) -> bool:
        end = time.perf_counter()
        self.plans.append(self.target.begin - self.begin)
        self.steps.append(end - self.target.end)
        self.tokens.append(mean(state.advances))
        self.left -= 1
        self.start()
        return self.left == 0


def _measure(name: str, scheduler: DecodingScheduler, target: _SyntheticTarget, passes: int) -> StepCost:
    seconds = _codebook_seconds(scheduler, target)
    noise = PositionNoise(list(range(target.batch_size)), target.device)
    watch = _Stopwatch(target, passes)
    while watch.left:
        companions = {name: COMPANIONS[name].stand_in(target.laws_at.in_turn()) for name in scheduler.companions}
        watch.start()
        decode(target, scheduler, noise, {**companions, "stopwatch": watch}, watch)
    return StepCost(
        name=name,
        label=scheduler.label,
        window=scheduler.window,
        slots=mean(watch.slots[1:]),
        tokens=mean(watch.tokens[1:]),
        plan=median(watch.plans[1:]),
        step=median(watch.steps[1:]),
        codebook=seconds,
    )


def _codebook_seconds(scheduler: DecodingScheduler, target: _SyntheticTarget) -> float:
    """From the moment that the rule has the codebook until it is ready to be asked."""
    if scheduler.acceptance is not None:
        scheduler.acceptance.running(target)
        wait_for(target.device)
    return 0.0 if target.asked is None else time.perf_counter() - target.asked
