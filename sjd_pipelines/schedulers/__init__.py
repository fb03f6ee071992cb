"""Decoding schedulers: which tokens to draft, verify and commit in each forward pass."""

from .autoregressive import AutoregressiveScheduler
from .base import DecodingScheduler
from .corrected_jacobi import CorrectedJacobiScheduler
from .eagle import EagleScheduler, SeededEagleScheduler
from .grouped import GroupedSJDScheduler
from .jacobi import JacobiScheduler, SeededJacobiScheduler
from .lantern import LanternEagleScheduler, LanternScheduler
from .parallel_jacobi import ParallelJacobiScheduler
from .raster_window import RasterWindowScheduler
from .revised_jacobi import RevisedJacobiScheduler
from .row_parallel import RowParallelScheduler
from .sjd_pac import SJDPACScheduler
from .sjd_plus_plus import SJDPlusPlusScheduler
from .speculative_jacobi import CoupledSJDScheduler, SJDScheduler
from .tree_jacobi import TreeJacobiScheduler
from .zipar import ZipARScheduler

# The names used by the command line and by ComfyUI.
SCHEDULERS: dict[str, type[DecodingScheduler]] = {
    "autoregressive": AutoregressiveScheduler,
    "jacobi": JacobiScheduler,
    "seeded-jacobi": SeededJacobiScheduler,
    "tree-jacobi": TreeJacobiScheduler,
    "sjd": SJDScheduler,
    "sjd++": SJDPlusPlusScheduler,
    "coupled-sjd": CoupledSJDScheduler,
    "sjd-pac": SJDPACScheduler,
    "gsd": GroupedSJDScheduler,
    "lantern": LanternScheduler,
    "zipar": ZipARScheduler,
    "pjd": ParallelJacobiScheduler,
    "eagle": EagleScheduler,
    "seeded-eagle": SeededEagleScheduler,
    "lantern-eagle": LanternEagleScheduler,
    "corrected-jacobi": CorrectedJacobiScheduler,
    "revised-jacobi": RevisedJacobiScheduler,
}

__all__ = [
    "SCHEDULERS",
    "DecodingScheduler",
    "RasterWindowScheduler",
    "RowParallelScheduler",
    *(cls.__name__ for cls in SCHEDULERS.values()),
]
