"""How the passes of a run are executed: as they are written, or recorded, compiled and replayed.

A pass is recorded the second time that a run comes to its shape: ATen operations of all of it, from what is asked to
what is committed, in one graph, which `torch.compile` takes whole. It works on tensors at fixed addresses and leaves
what it computes in the very places that it was read from, so that a replay takes nothing and returns nothing, and a
CUDA graph can hold it. A later run of the same shape copies what it has begun with to these places, and goes on there.

A pass whose shape comes once in a run is not worth a graph: it is executed as it is written.
"""

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from .graphs import Arena, captured, owned, told_by, write
from .held import first_places, held, put_back
from .look import looks, recording
from .noise import PositionNoise
from .query import Query
from .state import DecodingState
from .target import Companion, Scheduler, Target
from .turns import Turns

logger = logging.getLogger(__name__)
_turns = Turns()
KEPT = 8  # arenas of a runner; each holds the keys and values of a batch


@dataclass(eq=False)
class Run:
    """What a pass works with: all of these may hold tensors that it reads or changes.

    Attributes:
        target: the model.
        scheduler: holds settings alone.
        state: of the batch.
        noise: of the batch.
        companions: by name.
    """

    target: Target
    scheduler: Scheduler
    state: DecodingState
    noise: PositionNoise
    companions: Mapping[str, Companion]

    def execute(self) -> bool:
        """One pass, as it is written; returns True: its time tells of others."""
        self._answer(self.scheduler.plan(self.state, self.noise))
        return True

    def compute(self) -> None:
        """What of a pass is the device's, once it is prepared."""
        self._answer(self.scheduler.ask(self.state, self.noise))

    def _answer(self, query: Query) -> None:
        seen = self.target.run(query)
        self.state.watch(seen)
        for companion in self.companions.values():
            companion.observe(seen)
        self.scheduler.step(self.target.law(seen.logits, query.predicts), query, self.state, self.noise)

    @property
    def roots(self) -> list[Any]:
        """Who holds its tensors, see `held`."""
        return [self.state, self.target, self.noise, self.companions]


@dataclass(eq=False)
class Graph:
    """A recorded pass.

    Attributes:
        arena: whose tensors it reads and changes.
        tensors: those of them, each once.
        places: for each place of a run that holds a tensor, in order, which of `tensors` belongs there.
        replay: computes one pass.
        nbytes: of device memory that a CUDA graph keeps for what it computes on the way.
        as_recorded: whether the compiler that was asked for failed on it.
    """

    arena: Arena
    tensors: list[torch.Tensor]
    places: tuple[int, ...]
    replay: Callable[..., Any]
    nbytes: int = 0
    as_recorded: bool = False

    def bind(self, run: Run) -> None:
        """Let a run go on at the addresses of this graph."""
        live = held(run.roots)
        write([(self.tensors[place], tensor) for place, (_, tensor) in zip(self.places, live)])
        put_back(run.roots, [self.tensors[place] for place in self.places])


@dataclass
class Execution:
    """How the passes of a run were executed, where they are recorded.

    Attributes:
        replayed: passes that a graph computed.
        as_recorded: those of them whose graph the compiler failed on, so that they ran uncompiled.
        graphs: graphs that were recorded meanwhile.
        seconds: that these took to record, compile and capture.
        nbytes: memory that the graphs of this run hold, with the tensors that they work on.
    """

    replayed: int = 0
    as_recorded: int = 0
    graphs: int = 0
    seconds: float = 0.0
    nbytes: int = 0


class Runner:
    """Records the passes of one model, and lends the graphs to its runs.

    A copy begins with no graphs, in this process or in another.

    Args:
        backend: of `torch.compile`; "eager" compiles nothing.
        capture: whether passes on CUDA are captured as CUDA graphs.
    """

    outlives_runs = True

    def __init__(self, backend: str = "inductor", capture: bool = True):
        self.backend, self.capture = backend, capture
        self._graphs: dict[Hashable, Graph | None] = {}  # None: no pass of this kind can be recorded
        self._served: Hashable = None  # whose passes the graphs are
        self.drops = 0  # how often all graphs were forgotten
        self._announced = False
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["Runner"], tuple[str, bool]]:
        return Runner, (self.backend, self.capture)

    def __len__(self) -> int:
        """How many graphs there are."""
        return sum(graph is not None for graph in list(self._graphs.values()))

    def drop(self) -> None:
        """Forget all graphs; a run that is at work on one goes on to the next shape, and as written from there."""
        with self._lock:
            self._graphs, self.drops = {}, self.drops + 1

    def serve(self, model: Hashable) -> None:
        """Forget the graphs unless they are of this model: shallow copies of a pipeline share a runner."""
        if model != self._served:
            self.drop()
            self._served = model

    def known(self, key: Hashable) -> bool:
        """Whether this kind of pass has been recorded, or found to be impossible to record."""
        return key in self._graphs

    def borrow(self, key: Hashable, arenas: list[Arena]) -> Graph | None:
        """The graph of a known kind of pass; None where there is none or another run is at work on its tensors.

        Args:
            key: the kind of pass.
            arenas: that the run has borrowed; one more, if that is needed.
        """
        with self._lock:
            graph = self._graphs.get(key)
            if graph is None or (graph.arena.lent and graph.arena not in arenas):
                return None
            if graph.arena not in arenas:
                graph.arena.lend()
                arenas.append(graph.arena)
            return graph

    def keep(self, key: Hashable, graph: Graph | None) -> None:
        """Keep what came of recording a kind of pass, unless another run was quicker.

        Graphs are forgotten whose arena was lent longest ago, where there are more than `KEPT`: every sampling setting
        has its own, and who tries many would fill the device with what is never used again.
        """
        with self._lock:
            self._graphs.setdefault(key, graph)
            arenas = {one.arena for one in self._graphs.values() if one is not None}
            gone = sorted(arenas, key=lambda arena: arena.loan)[:-KEPT]
            self._graphs = {key: one for key, one in self._graphs.items() if one is None or one.arena not in gone}

    def give_back(self, arenas: list[Arena]) -> None:
        """A run has ended."""
        with self._lock:
            for arena in arenas:
                arena.lent = False

    def compiled(
        self, module: torch.fx.GraphModule, tensors: list[torch.Tensor], backend: str
    ) -> tuple[Callable[..., Any], int]:
        """Make a graph callable without arguments, and say how much device memory it keeps.

        Every backend is called once, so that nothing is left to be made in a pass; the tensors are as before then,
        also where it fails.
        """
        before = [tensor.clone() for tensor in tensors]
        try:
            call: Callable[..., Any] = module.forward  # around it fx has code of its own, which is not compiled
            if backend != "eager":
                self._announce(backend)
                call = torch.compile(call, backend=backend, fullgraph=True, dynamic=False)
            if self.capture and tensors[0].device.type == "cuda":
                return captured(call, tensors)
            call(*tensors)
            return partial(call, *tensors), 0
        finally:
            for tensor, value in zip(tensors, before):
                tensor.copy_(value)

    def _announce(self, backend: str) -> None:
        """Tell whoever waits what for, once: nobody can say how long a compiler takes, and nothing ends it."""
        if not self._announced:
            logger.warning("Compiling passes with %s: this may take minutes for each shape of a pass.", backend)
        self._announced = True


class RunAtWork:
    """A run whose passes are recorded and replayed. Called, it computes one pass.

    Args:
        runner: keeps the graphs.
        run: to whom they are lent.
    """

    def __init__(self, runner: Runner, run: Run):
        self.runner, self.run, self.execution = runner, run, Execution()
        self._drops = runner.drops  # after others the model is not the one that this run began with
        self._met: set[Hashable] = set()  # kinds of passes that this run has come to
        self._told: set[str] = set()
        self._arenas: list[Arena] = []
        self._graphs: set[Graph] = set()
        self._current: tuple[tuple[int, ...], Graph] | None = None  # whose tensors are in place, and of which shape

    def __call__(self) -> bool:
        """Returns whether the time it took tells of other passes."""
        run, state = self.run, self.run.state
        run.scheduler.prepare(state, run.noise)
        if self._current is None or self._current[0] != state.shape:
            graph = self._find()
            if graph is None:
                return False
            graph.bind(run)
            self._current = state.shape, graph
            self._graphs.add(graph)
        with _turns.a_pass():
            self._current[1].replay()
        state.passes += 1
        self.execution.replayed += 1
        self.execution.as_recorded += self._current[1].as_recorded
        return True

    def close(self) -> None:
        """Give back what is lent: the state gets copies, and what else the run has is of no use any more."""
        owned = {id(tensor) for arena in self._arenas for tensor in arena.tensors.values()}
        for root in self.run.roots:
            keeps = root is self.run.state
            live = [tensor for _, tensor in held(root)]
            put_back(root, [_parted(tensor, keeps) if id(tensor) in owned else tensor for tensor in live])
        self.execution.nbytes = sum(arena.nbytes for arena in self._arenas) + sum(g.nbytes for g in self._graphs)
        self.runner.give_back(self._arenas)

    def _find(self) -> Graph | None:
        """The graph of this pass; where there is none yet the pass is executed, and perhaps recorded."""
        self._current = None
        if self.run.target.runner is not self.runner or self.runner.drops != self._drops:
            self._tell("replayed", "the model has changed since the run began, or its graphs were dropped")
            self._compute()
            return None
        live = held(self.run.roots)
        key = self._kind(live)
        if self.runner.known(key):
            graph = self.runner.borrow(key, self._arenas)
            if graph is None:
                self._tell("replayed", "another run is at work on the graph of this shape, or it cannot be recorded")
                self._compute()
            return graph
        if key in self._met:
            self._record(key, live)
        else:
            self._met.add(key)
            logger.info("A pass with shape %s is executed as written: it has no graph yet.", self.run.state.shape)
            self._compute()
        return None

    def _compute(self) -> None:
        with _turns.a_pass():
            self.run.compute()

    def _kind(self, live: list[tuple[str, torch.Tensor]]) -> Hashable:
        """All that the operations of a pass depend on, but for the weights."""
        run, state = self.run, self.run.state
        tensors = tuple((path, t.shape, t.dtype, t.device, t.is_inference()) for path, t in live)
        made = type(run.scheduler), run.scheduler.settings, run.target.layout, run.target.sampling
        return *made, state.passes == 0, state.shape, tensors, first_places(live)

    def _record(self, key: Hashable, live: list[tuple[str, torch.Tensor]]) -> None:
        """Execute a pass, and keep what it did."""
        begin, run, places = time.perf_counter(), self.run, first_places(live)
        arena = self._arenas[-1] if self._arenas else Arena(lent=True)
        tensors = [owned(tensor, arena) for index, (_, tensor) in enumerate(live) if places[index] == index]
        number = {index: order for order, index in enumerate(sorted(set(places)))}
        places = tuple(number[index] for index in places)
        put_back(run.roots, [tensors[place] for place in places])
        stays = False

        def one_pass(*_: torch.Tensor) -> None:
            nonlocal stays
            run.compute()
            stays = _leave_in_place(run, tensors, places)

        with _turns.a_recording(), recording(), torch.no_grad():
            module = make_fx(one_pass)(*tensors)
        graph = None
        if stays:
            with _turns.a_pass():  # torch compiles nothing beside a recording
                made = self._compile(module, tensors)
            graph = made and Graph(arena, tensors, places, *made)
        else:
            self._tell("replayed", "what a pass leaves to the next one changes its shape")
        if graph is not None:
            if arena not in self._arenas:
                self._arenas.append(arena)
            self.execution.graphs += 1
        if self.runner.drops == self._drops:  # a compiler takes minutes
            self.runner.keep(key, graph)
        self.execution.seconds += time.perf_counter() - begin

    def _compile(
        self, module: torch.fx.GraphModule, tensors: list[torch.Tensor]
    ) -> tuple[Callable[..., Any], int, bool] | None:
        """What the runner's backend makes of a recorded pass; where it fails, the recorded operations as they are."""
        for backend in dict.fromkeys((self.runner.backend, "eager")):
            try:
                return *self.runner.compiled(module, tensors, backend), backend != self.runner.backend
            except RuntimeError as error:  # of whatever compiler, or of a capture
                self._tell("replayed" if backend == "eager" else "compiled", f"{backend} failed: {told_by(error)}")
        return None

    def _tell(self, what: str, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("Passes with shape %s are not %s: %s.", self.run.state.shape, what, reason)


def executing(run: Run) -> AbstractContextManager[Callable[[], bool]]:
    """A block in which `run` is executed, pass by pass, by calls of what it gives.

    These return whether the time a pass took tells of others.
    """
    runner = run.target.runner
    if runner is None:
        return nullcontext(run.execute)
    onlookers = run.companions.keys() - set(run.scheduler.companions)  # called in every pass, which no graph does
    if onlookers or not run.scheduler.recordable:
        whose = "that others look at" if onlookers else f"of {type(run.scheduler).__name__}"
        logger.warning("Passes %s are not recorded: they are executed as written.", whose)
        return nullcontext(run.execute)
    return _at_work(runner, run)


@contextmanager
def _at_work(runner: Runner, run: Run) -> Iterator[RunAtWork]:
    work = RunAtWork(runner, run)
    run.state.execution = work.execution
    with looks(free=False):  # the way of an accelerator, also where nothing is recorded: what passes leave is alike
        try:
            yield work
        finally:
            work.close()


def _parted(tensor: torch.Tensor, keeps: bool) -> torch.Tensor:
    return tensor.clone() if keeps else tensor.new_empty(0)


def _leave_in_place(run: Run, tensors: list[torch.Tensor], places: tuple[int, ...]) -> bool:
    """Write what a pass has put in a run's places into the tensors it found there, if they are of the same shapes."""
    live = held(run.roots)
    if len(live) != len(places):
        return False
    found: dict[int, torch.Tensor] = {}
    for place, (_, tensor) in zip(places, live):
        if found.setdefault(place, tensor) is not tensor:
            return False  # two places held one tensor and do so no more
    if any((found[n].shape, found[n].dtype) != (old.shape, old.dtype) for n, old in enumerate(tensors)):
        return False
    write([(tensors[number], tensor) for number, tensor in found.items()])
    put_back(run.roots, [tensors[place] for place in places])
    return True
