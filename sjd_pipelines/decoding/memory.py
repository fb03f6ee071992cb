"""What the runs of a model find out and leave to later ones: tables of its codebook, what its passes take."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class Memory:
    """Findings of the runs of one model, which last as long as the model does. Runs in several threads may share it.

    A copy of the model begins with an empty one, in this process or in another.
    """

    outlives_runs = True

    def __init__(self) -> None:
        self._kept: dict[str, OrderedDict[Hashable, Any]] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["Memory"], tuple[()]]:
        return Memory, ()

    def recall(
        self, kind: str, key: Hashable, make: Callable[[], T], room: int, holds: Callable[[T], bool] | None = None
    ) -> T:
        """What is kept under a key, made first where there is nothing.

        Args:
            kind: of finding.
            key: which one of that kind.
            make: finds it out. Meanwhile other runs of the model wait that ask this memory: they would want the same.
            room: of each kind so many are kept, those used last.
            holds: whether what is kept still is true; if not it is made anew.
        """
        with self._lock:
            kept = self._kept.setdefault(kind, OrderedDict())
            if key not in kept or (holds is not None and not holds(kept[key])):
                kept[key] = make()
            kept.move_to_end(key)
            while len(kept) > room:
                kept.popitem(last=False)
            return kept[key]
