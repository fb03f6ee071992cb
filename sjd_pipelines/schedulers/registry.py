"""The schedulers by name, a line each. A class is imported when it is asked for, so names are known without torch."""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import DecodingScheduler

# Name, as the command line and ComfyUI use it -> module of this package and class.
_PLACES = {
    "autoregressive": "autoregressive.AutoregressiveScheduler",
    "jacobi": "jacobi.JacobiScheduler",
    "seeded-jacobi": "jacobi.SeededJacobiScheduler",
    "tree-jacobi": "tree_jacobi.TreeJacobiScheduler",
    "sjd": "speculative_jacobi.SJDScheduler",
    "sjd++": "sjd_plus_plus.SJDPlusPlusScheduler",
    "coupled-sjd": "speculative_jacobi.CoupledSJDScheduler",
    "sjd-pac": "sjd_pac.SJDPACScheduler",
    "gsd": "grouped.GroupedSJDScheduler",
    "lantern": "lantern.LanternScheduler",
    "zipar": "zipar.ZipARScheduler",
    "pjd": "parallel_jacobi.ParallelJacobiScheduler",
    "eagle": "eagle.EagleScheduler",
    "seeded-eagle": "eagle.SeededEagleScheduler",
    "lantern-eagle": "lantern.LanternEagleScheduler",
    "corrected-jacobi": "corrected_jacobi.CorrectedJacobiScheduler",
    "revised-jacobi": "revised_jacobi.RevisedJacobiScheduler",
}
_BASES = ("base.DecodingScheduler", "raster_window.RasterWindowScheduler", "row_parallel.RowParallelScheduler")

# Module -> what the package exports of it.
EXPORTS: dict[str, list[str]] = {}
for _place in (*_BASES, *_PLACES.values()):
    _module, _name = _place.split(".")
    EXPORTS.setdefault(f".{_module}", []).append(_name)


class Registry(MutableMapping[str, "type[DecodingScheduler]"]):
    """Name -> scheduler class. A program may add classes of its own, for the command line it starts or its tests."""

    def __init__(self, places: Mapping[str, str]):
        self._entries: dict[str, str | type[DecodingScheduler]] = dict(places)

    def __getitem__(self, name: str) -> "type[DecodingScheduler]":
        entry = self._entries[name]
        if isinstance(entry, str):
            module, cls = entry.split(".")
            entry = self._entries[name] = getattr(import_module(f".{module}", __package__), cls)
        return entry

    def __setitem__(self, name: str, cls: "type[DecodingScheduler]") -> None:
        self._entries[name] = cls

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


SCHEDULERS = Registry(_PLACES)


def registered_name(cls: type) -> str:
    """The name `cls` is registered under, or its class name."""
    return next((name for name, registered in SCHEDULERS.items() if registered is cls), cls.__name__)
