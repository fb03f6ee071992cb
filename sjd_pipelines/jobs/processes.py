"""Workers as processes of this machine. One that is killed is replaced, and its batch drawn again."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from .batches import Batch
from .folder import JobError, JobFolder
from .work import Outcome, Work, Worker, give_up, settle_process

MOST_DEATHS = 3  # of workers, over one batch or before they have loaded the model


@dataclass
class _Member:
    """A worker's process.

    Attributes:
        number: of the worker.
        process: the process.
        connection: to it.
        batch: that it draws; None while it waits.
        loaded: whether it has loaded the model.
    """

    number: int
    process: BaseProcess
    connection: Connection
    batch: Batch | None = None
    loaded: bool = False

    def give(self, batch: Batch) -> None:
        self.batch = batch
        with suppress(OSError):  # one that has died is found out when it should answer
            self.connection.send(batch)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        self.process.close()


class Processes:
    """A team of worker processes.

    Args:
        work: what they are told.
        count: how many there are, at most.
    """

    def __init__(self, work: Work, count: int):
        self.work, self.count = work, count
        self._deaths: Counter[str] = Counter()  # by the first id of a batch
        self._loading_deaths = 0
        self._again: deque[Batch] = deque()

    def draw(self, batches: Iterable[Batch]) -> Iterator[Outcome]:
        """Draw and write batches; what became of each comes as it ends.

        Raises:
            JobError: workers end before they have loaded the model.
        """
        rest, team = iter(batches), []
        try:
            while True:
                for member in self._idle(team):
                    batch = self._again.popleft() if self._again else next(rest, None)
                    if batch is None:
                        break
                    if member is None:
                        member = self._start(len(team))
                        team.append(member)
                    member.give(batch)
                busy = {member.connection: member for member in team if member.batch is not None}
                if not busy:
                    return
                for connection in wait(list(busy)):
                    yield from self._answer(busy[connection], team)
        finally:
            for member in team:
                member.end()

    def _idle(self, team: list[_Member]) -> list[_Member | None]:
        """Members without work, and None for those that are not there yet."""
        return [member for member in team if member.batch is None] + [None] * (self.count - len(team))

    def _answer(self, member: _Member, team: list[_Member]) -> Iterator[Outcome]:
        batch = member.batch
        try:
            outcome = member.connection.recv()
        except (EOFError, OSError):
            yield from self._died(member, team)
            return
        if outcome is None:
            member.loaded, self._loading_deaths = True, 0
            return
        member.batch = None
        self._deaths.pop(batch.rows[0].id, None)
        yield outcome

    def _died(self, member: _Member, team: list[_Member]) -> Iterator[Outcome]:
        """Put another one in the place of a worker that was killed."""
        batch = member.batch
        member.process.join()
        words = f"exit status {member.process.exitcode}; -9 is often a lack of memory"
        if member.loaded:
            self._deaths[batch.rows[0].id] += 1
        else:
            self._loading_deaths += 1
            if self._loading_deaths >= MOST_DEATHS * self.count:
                raise JobError(f"workers end before they have loaded the model ({words}).")
        team.remove(member)
        member.end()
        team.append(self._start(member.number))
        if self._deaths[batch.rows[0].id] < MOST_DEATHS:
            self._again.append(batch)
        else:
            yield give_up(JobFolder(self.work.folder), batch, f"workers died over it {MOST_DEATHS} times ({words}).")

    def _start(self, number: int) -> _Member:
        context = _context()
        here, there = context.Pipe()
        process = context.Process(target=_run, args=(there, self.work, number), daemon=True)
        process.start()
        there.close()
        return _Member(number, process, here)


def _context() -> multiprocessing.context.BaseContext:
    """Where there is a server that forks, libraries are imported once and not by every worker."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.preloaded"])
    _serve()
    return context


def _serve() -> None:
    """Start the server that forks, if it does not run: deaf to Ctrl-C, which it would die of while it imports."""
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # first, since it lets the signal through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which what is started here inherits
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(connection: Connection, work: Work, number: int) -> None:
    """A worker's life. It ends with the process that started it, however that one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the one that gives out work ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settle_process(work)
    try:
        worker = Worker(work, number)
    except JobError as error:
        connection.recv()
        connection.send(Outcome(stopped=str(error)))
        return
    with suppress(EOFError, BrokenPipeError):
        connection.send(None)
        while True:
            connection.send(worker.draw(connection.recv()))


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    sys.stderr.flush()
    os._exit(1)
