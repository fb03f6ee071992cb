"""Decoding schedulers: which tokens to draft, verify and commit in each forward pass."""

from .autoregressive import (
    AutoregressiveScheduler,
)
from .base import (
    DecodingScheduler,
)
from .corrected_jacobi import (
    CorrectedJacobiScheduler,
)
from .eagle import (
    EagleScheduler,
    SeededEagleScheduler,
)
from .early_exit import (
    EarlyExitScheduler,
)
from .grouped import (
    GroupedSJDScheduler,
)
from .jacobi import (
    JacobiScheduler,
    SeededJacobiScheduler,
)
from .lantern import (
    LanternEagleScheduler,
    LanternScheduler,
)
from .parallel_groups import (
    ParallelGroupsScheduler,
)
from .parallel_jacobi import (
    ParallelJacobiScheduler,
)
from .raster_window import (
    RasterWindowScheduler,
)
from .registry import (
    SCHEDULERS,
)
from .revised_jacobi import (
    RevisedJacobiScheduler,
)
from .row_parallel import (
    RowParallelScheduler,
)
from .sjd_pac import (
    SJDPACScheduler,
)
from .sjd_plus_plus import (
    SJDPlusPlusScheduler,
)
from .speculative_jacobi import (
    CoupledSJDScheduler,
    SJDScheduler,
)
from .tree_jacobi import (
    TreeJacobiScheduler,
)
from .zipar import (
    ZipARScheduler,
)

__all__ = [
    "AutoregressiveScheduler",
    "CorrectedJacobiScheduler",
    "CoupledSJDScheduler",
    "DecodingScheduler",
    "EagleScheduler",
    "EarlyExitScheduler",
    "GroupedSJDScheduler",
    "JacobiScheduler",
    "LanternEagleScheduler",
    "LanternScheduler",
    "ParallelGroupsScheduler",
    "ParallelJacobiScheduler",
    "RasterWindowScheduler",
    "RevisedJacobiScheduler",
    "RowParallelScheduler",
    "SCHEDULERS",
    "SJDPACScheduler",
    "SJDPlusPlusScheduler",
    "SJDScheduler",
    "SeededEagleScheduler",
    "SeededJacobiScheduler",
    "TreeJacobiScheduler",
    "ZipARScheduler",
]
