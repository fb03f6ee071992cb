"""Compiled passes: switched on and off for a pipeline, and forgotten where its weights are no longer the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import torch

from ..decoding.runner import Runner

BACKENDS = ("inductor", "aot_eager", "eager")
_OFFLOADED = (
    "Compiled passes need weights that stay where they are, and these are offloaded: remove the offloading first "
    "(remove_all_hooks), or leave passes as they are."
)


# Where torch keeps what is called around a module's own code; the numbers of its hooks are never given twice.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# What tells layers with PEFT's adapters from others, and what else they have of settings that change their numbers.
_ADAPTED, _ADAPTERS = "_active_adapter", ("_disable_adapters", "merged_adapters", "scaling")


class Compiling:
    """What a pipeline has for passes that are recorded, compiled and, on CUDA, captured; see `decoding.runner`."""

    float32_logits = False
    _runner: Runner | None = None

    def enable_compile(self, backend: str = "inductor", capture: bool = True) -> None:
        """Execute passes by graphs from now on: recorded in the first picture of each shape, replayed from then on.

        A graph holds a whole pass: embedding, transformer, guidance, sampling, the scheduler's work and that of its
        companions. There is one for each number of slots and of tokens that are read, so that the first picture with
        another scheduler, batch size, picture size or sampling setting takes longer; `statistics.execution` says how
        much. Those of the eight settings that were used last are kept. A compiler may take minutes for each, and
        nothing ends it. Prompts of up to 64 tokens, 128 and so on share their graphs. A pass without a graph, and
        every pass of schedulers that work row by row, is executed as it is written; one that the backend fails on is
        replayed as it was recorded, uncompiled, and the log says so. The numbers of a compiled pass differ from those
        of a written one in their last bits: a token may differ where two were as likely.

        Moving weights, adding to them, setting adapters of PEFT otherwise, other modules, hooks or modes (`train`,
        `eval`) forget the graphs, as `disable_compile` does; copies of the pipeline have none. What a callback changes
        of these is sure to be seen in the next picture only; this one leaves no graphs then.

        Args:
            backend: of `torch.compile`: `inductor` (needs a C++ compiler, on CUDA Triton; fails without), `aot_eager`
                (compiles nothing, for tests) or `eager` (the recorded operations as they are).
            capture: on CUDA, whether graphs are captured as CUDA graphs. They keep the memory they work in.

        Raises:
            ValueError: an unknown backend, or the weights are offloaded.
        """
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
        if _offloaded(self.components.values()):
            raise ValueError(_OFFLOADED)
        self._runner = Runner(backend, bool(capture))

    def disable_compile(self) -> None:
        """Execute passes as they are written again, and forget all graphs."""
        self.drop_graphs()
        self._runner = None

    def enable_float32_logits(self) -> None:
        """Compute logits of half-precision weights in float32 from the last hidden states on.

        In bfloat16 logits have three digits, so that near-ties are decided by how a kernel rounds, which depends on
        how many slots a pass has: a token of an exact scheduler then differs from that of sequential decoding. This
        takes away the part of it that arises behind the transformer, at the price of reading the head's weights twice.

        Measured on the bundled model on a CPU, seeded Jacobi against sequential decoding, 40 pictures: in bfloat16 20
        differ (a token in 415 is the first that does), with float32 logits 3 (one in 3,316), in float32 none.
        """
        self.drop_graphs()
        self.float32_logits = True

    def disable_float32_logits(self) -> None:
        """Compute logits in the format of the weights again."""
        self.drop_graphs()
        self.float32_logits = False

    def drop_graphs(self) -> None:
        """Forget all graphs, and free what they hold; the next pictures record them anew."""
        if self._runner is not None:
            self._runner.drop()

    @property
    def runner(self) -> Runner | None:
        """Who executes passes that are recorded, with graphs of the weights as they are now; None without one."""
        if self._runner is not None:
            if _offloaded(self.components.values()):
                raise ValueError(_OFFLOADED)
            weights = _weights(self.components.values()), _code(self.components.values())
            self._runner.serve(weights)
        return self._runner

    def to(self, *args: Any, **kwargs: Any):
        """As in diffusers; graphs are forgotten."""
        self.drop_graphs()
        return super().to(*args, **kwargs)


def _modules(components: Any) -> Iterator[torch.nn.Module]:
    return (component for component in components if isinstance(component, torch.nn.Module))


def _offloaded(components: Any) -> bool:
    """Whether hooks bring weights to the device when they are needed."""
    return any(hasattr(part, "_hf_hook") for component in _modules(components) for part in component.modules())


def _weights(components: Any) -> Hashable:
    """Which weights there are and where: other ones where they are moved, replaced or added to, not where set.

    Which of PEFT's adapters are at work, and how strongly, is written in its modules, and a graph has it by heart.
    """
    tensors = tuple(
        (name, id(tensor), tensor.data_ptr(), tensor.device, tensor.dtype)
        for component in _modules(components)
        for named in (component.named_parameters(), component.named_buffers())
        for name, tensor in named
    )
    adapted = (one for component in _modules(components) for one in component.modules() if hasattr(one, _ADAPTED))
    return tensors, repr([[getattr(layer, name, None) for name in (_ADAPTED, *_ADAPTERS)] for layer in adapted])


def _code(components: Any) -> Hashable:
    """What the modules do besides their weights, which a recording writes down: their kinds, modes and hooks."""
    return tuple(
        (type(one), id(one), one.training, id(vars(one).get("forward")), *(tuple(getattr(one, at)) for at in _HOOKS))
        for component in _modules(components)
        for one in component.modules()
    )
