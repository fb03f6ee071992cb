"""Decoding schedulers: which tokens to draft, verify and commit in each forward pass."""

from .autoregressive import AutoregressiveScheduler
from .jacobi import JacobiScheduler, SeededJacobiScheduler
from .raster_window import RasterWindowScheduler
from .speculative_jacobi import CoupledSJDScheduler, SJDScheduler

# The names used by the command line and by ComfyUI.
SCHEDULERS: dict[str, type[RasterWindowScheduler]] = {
    "autoregressive": AutoregressiveScheduler,
    "jacobi": JacobiScheduler,
    "seeded-jacobi": SeededJacobiScheduler,
    "sjd": SJDScheduler,
    "coupled-sjd": CoupledSJDScheduler,
}

__all__ = ["SCHEDULERS", "RasterWindowScheduler", *(cls.__name__ for cls in SCHEDULERS.values())]
