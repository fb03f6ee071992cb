"""Whole pictures on device `meta`, which has shapes and no numbers: whatever looks at them raises.

Runs of the real loop with a real model. A read of the device is answered with made-up progress, and counted.
"""

from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sjd_pipelines import RowParallelScheduler, SeededJacobiScheduler, SJDScheduler
from sjd_pipelines.benchmark.toy import toy_par_pipeline, toy_pipeline
from sjd_pipelines.decoding import Memory, PositionNoise, Sampling, decode
from sjd_pipelines.schedulers import SCHEDULERS

SETTINGS = [
    *((name, {}) for name in SCHEDULERS),
    ("par", {"window": 8}),
    ("seeded-jacobi", {"window": 5, "initialise": "repeat-left"}),
    ("seeded-jacobi", {"window": "auto"}),
    ("sjd", {"window": 5, "initialise": "random"}),
    ("sjd++", {"window": 5, "confidence": "probability"}),
    ("coupled-sjd", {"window": 5, "coupling": "gumbel"}),
    ("gsd", {"window": 5, "distance": None}),
    ("lantern", {"window": 5, "rule": "annealed"}),
    ("lantern", {"window": 5, "residual": "release"}),
    ("lantern-eagle", {"rule": "annealed"}),
    ("sjd-pac", {"window": 1}),
    ("zipar", {"delay": 1, "adaptive": True}),
    ("pjd", {"delay": 1, "coupled": True}),
]
SAMPLED, GREEDY = Sampling(2.0, 0.7, top_k=8, top_p=0.9), Sampling(temperature=0)


class Constructors(TorchFunctionMode):
    """Counts tensors that are made on the device from numbers of the host."""

    uploads = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        self.uploads += func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and result.is_meta
        return result


class Copies(TorchDispatchMode):
    """Counts copies to the device and from it; `answer` says what the latter bring."""

    uploads = reads = 0

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        goal = kwargs.get("device")
        if func is torch.ops.aten._to_copy.default and goal is not None:
            if tensors[0].is_meta and goal.type == "cpu":
                self.reads += 1
                return self.answer(tensors[0])
            self.uploads += goal.type == "meta" and not tensors[0].is_meta
        elif any(tensor.is_meta for tensor in tensors):  # kernels take numbers of the host along, not lists of them
            self.uploads += sum(not tensor.is_meta and tensor.dim() > 0 for tensor in tensors)
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def models():
    """By whether they make several tokens at once."""
    return {False: toy_pipeline(side=4, codebook_size=16).to("meta"), True: toy_par_pipeline(4, 16).to("meta")}


@pytest.fixture
def encoded(toy, par_toy):
    def encode(guided, parallel):
        prompts = ["0", "1"] if parallel else ["a red dog", "car"]
        prompt = (par_toy if parallel else toy).encode_prompt(prompts, None, guided, 1)
        return replace(
            prompt, **{name: value.to("meta") for name, value in vars(prompt).items() if torch.is_tensor(value)}
        )

    return encode


@pytest.fixture
def watch(models, encoded):
    @torch.no_grad()
    def run(scheduler, sampling=SAMPLED):
        """Decode two pictures: how often each pass reads the device, and how much it uploads."""
        model = models[scheduler.parallel]
        layout = model.image_layout(None, None)
        model.memory = Memory()  # whether what is kept there still holds is a look
        prompt = encoded(sampling.guided, scheduler.parallel)
        target = model.prepare_target(prompt, layout, sampling, scheduler.margin(layout))
        companions = model.prepare_companions(scheduler, target)
        noise = PositionNoise([0, 1], "meta", target.length)
        committed, passes = torch.zeros(2, dtype=torch.int64), []

        def answer(values):
            """The second picture is quicker than the first, where one pass may commit several tokens."""
            if isinstance(scheduler, RowParallelScheduler):
                return torch.ones(values.shape, dtype=torch.int64)
            if scheduler.parallel:  # a token, then a group
                committed.add_(torch.where(committed < layout.parallel, 1, layout.parallel))
            else:
                committed.add_(torch.tensor([1, 1 + (scheduler.window > 0)]))
            committed.clamp_(max=layout.num_tokens)
            return committed.clone()

        def on_pass(state):
            passes.append((copies.reads, copies.uploads + constructors.uploads))
            copies.reads = copies.uploads = constructors.uploads = 0

        with Constructors() as constructors, Copies(answer) as copies:
            state = decode(target, scheduler, noise, companions, on_pass)
        assert state.finished
        assert state.canvas.is_meta
        return passes[1:]  # what is uploaded before the first pass is for the whole picture

    return run


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_pass_reads_the_device_once_and_uploads_nothing(watch, name, settings):
    scheduler = SCHEDULERS[name](**settings)
    uploads = int(isinstance(scheduler, RowParallelScheduler))  # rows are laid out on the host
    assert set(watch(scheduler)) == {(1, uploads)}


def test_greedy_sampling_reads_nothing_either(watch):
    assert set(watch(SJDScheduler(window=4), GREEDY)) == {(1, 0)}


class SecondRead(SeededJacobiScheduler):
    def redraft(self, slots):
        slots.accepted.tolist()
        return super().redraft(slots)


class UploadedTable(SeededJacobiScheduler):
    def redraft(self, slots):
        return super().redraft(slots) + slots.drafts.new_tensor([[0]])


class HostIndex(SeededJacobiScheduler):
    def redraft(self, slots):
        return super().redraft(slots)[:, torch.arange(slots.target.shape[1])]


class Peek(SeededJacobiScheduler):
    def redraft(self, slots):
        return super().redraft(slots) if slots.keep.any() else slots.seeded_choice


@pytest.mark.parametrize(("broken", "counts"), [(SecondRead, (2, 0)), (UploadedTable, (1, 1)), (HostIndex, (1, 1))])
def test_what_breaks_the_rule_is_counted(watch, broken, counts):
    assert set(watch(broken(window=4))) == {counts}


def test_a_look_at_numbers_raises(watch):
    with pytest.raises(RuntimeError, match="meta tensors"):
        watch(Peek(window=4))
