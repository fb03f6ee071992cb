"""Device `meta`, which has shapes and no numbers: whatever looks at them raises, and copies are counted."""

from dataclasses import replace

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sjd_pipelines import RowParallelScheduler
from sjd_pipelines.decoding import Memory, PositionNoise, decode


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


def without_numbers(prompt):
    """An encoded prompt on device `meta`."""
    return replace(
        prompt, **{name: value.to("meta") for name, value in vars(prompt).items() if torch.is_tensor(value)}
    )


@torch.no_grad()
def watched(model, prompt, scheduler, sampling):
    """Decode two pictures on `meta`: how often each pass reads the device, and how much it uploads.

    A read is answered with made-up progress.
    """
    layout = model.image_layout(None, None)
    model.memory = Memory()  # whether what is kept there still holds is a look
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
