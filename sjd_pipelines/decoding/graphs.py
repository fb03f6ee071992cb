"""What a recorded pass works on, and how it is made to run: tensors at fixed addresses, CUDA graphs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import count
from threading import Lock
from typing import Any

import torch

_capturing = Lock()  # a process captures one graph at a time
_loans = count()


@dataclass(eq=False)
class Arena:
    """Tensors at fixed addresses that passes of several shapes work on, lent to one run at a time.

    Attributes:
        tensors: by `id`.
        lent: whether a run is at work on them.
        loan: number of the last loan, of all that there were in this process.
    """

    tensors: dict[int, torch.Tensor] = field(default_factory=dict)
    lent: bool = False
    loan: int = field(default_factory=partial(next, _loans))

    def lend(self) -> None:
        """Lend them to a run."""
        self.lent, self.loan = True, next(_loans)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def owned(tensor: torch.Tensor, arena: Arena) -> torch.Tensor:
    """A tensor of the arena, which shares its memory with no other: this one, or a copy."""
    if id(tensor) not in arena.tensors:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        arena.tensors[id(tensor)] = tensor
    return tensor


@dataclass(eq=False)
class CUDAReplay:
    """A pass as a CUDA graph.

    Attributes:
        graph: of the pass.
        call: what was captured; it owns the constants that the graph reads.
    """

    graph: torch.cuda.CUDAGraph
    call: Callable[..., Any]

    def __call__(self) -> None:
        self.graph.replay()


def captured(call: Callable[..., Any], tensors: list[torch.Tensor]) -> tuple[CUDAReplay, int]:
    """`call(*tensors)` as a CUDA graph, and the bytes of device memory that it keeps."""
    device = tensors[0].device
    # A capture that fails leaves its stream as the current one: the outer block takes it back.
    with _capturing, torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        stream, graph = _side_stream(device), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call(*tensors)  # libraries get ready at their first calls, which may not be captured
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            before = torch.cuda.memory_reserved(device)  # that of other work has been given back by now
            call(*tensors)
    return CUDAReplay(graph, call), max(torch.cuda.memory_reserved(device) - before, 0)


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on a device: libraries keep a workspace for every stream they have worked on."""
    return torch.cuda.Stream(device)


def told_by(error: Exception) -> str:
    """What a compiler says of itself, without the lines around it."""
    lines = [line for line in str(error).splitlines() if line and not line.endswith("raised:")]
    return lines[0] if lines else type(error).__name__


def write(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Copy into each first tensor what the second one holds; some of the latter may share memory with the former."""
    targets = {target.untyped_storage().data_ptr() for target, _ in pairs}
    pairs = [(target, source) for target, source in pairs if source is not target]
    shared = [source.untyped_storage().data_ptr() in targets for _, source in pairs]
    sources = [source.clone() if alias else source for (_, source), alias in zip(pairs, shared)]
    for (target, _), source in zip(pairs, sources):
        target.copy_(source)
