"""What runs leave to later ones."""

import copy
import gc
import pickle
import threading
import weakref

from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.decoding import Memory


def test_a_finding_is_made_once_and_the_latest_are_kept():
    memory, made = Memory(), []

    def recall(key, kind="table", **options):
        return memory.recall(kind, key, lambda: made.append((kind, key)) or len(made), room=2, **options)

    assert [recall(1), recall(2), recall(1)] == [1, 2, 1]
    assert recall(1, "other") == 3  # of another kind
    assert recall(3) == 4  # takes the place of 2, which was used before 1
    assert [recall(1), recall(3), recall(2)] == [1, 4, 5]
    assert recall(2, holds=lambda value: value == 5) == 5
    assert recall(2, holds=lambda value: value > 5) == 6


def test_of_two_runs_one_finds_it_out():
    memory, begun, made, found = Memory(), [threading.Event(), threading.Event()], [], []

    def make():
        assert begun[1].wait(timeout=60)  # the other run is about to ask
        made.append(threading.get_ident())
        return object()

    def ask(index):
        begun[index].set()
        found.append(memory.recall("table", 1, make, 2))

    threads = [threading.Thread(target=ask, args=[index]) for index in range(2)]
    threads[0].start()
    assert begun[0].wait(timeout=60)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert found[0] is found[1]


def test_a_failed_attempt_leaves_nothing():
    memory = Memory()
    for _ in range(2):
        try:
            memory.recall("table", 1, lambda: 1 // 0, 2)
        except ZeroDivisionError:
            continue
    assert memory.recall("table", 1, lambda: 7, 2) == 7


def test_copies_begin_with_nothing():
    memory = Memory()
    memory.recall("table", 1, object, 2)
    for other in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert other.recall("table", 1, lambda: "new", 2) == "new"


def test_it_goes_with_the_model():
    pipe, other = toy_pipeline(2, 4), toy_pipeline(2, 4)
    assert pipe.memory is not other.memory
    finding = pipe.memory.recall("table", 1, threading.Event, 2)
    kept = weakref.ref(finding)
    del pipe, finding
    gc.collect()
    assert kept() is None
