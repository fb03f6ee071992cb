"""The schedulers by name, a line each. A class is imported when it is asked for, so names are known without torch."""

from ..exports import Registry, exports_of

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
    "early-exit": "early_exit.EarlyExitScheduler",
    "zipar": "zipar.ZipARScheduler",
    "pjd": "parallel_jacobi.ParallelJacobiScheduler",
    "eagle": "eagle.EagleScheduler",
    "seeded-eagle": "eagle.SeededEagleScheduler",
    "lantern-eagle": "lantern.LanternEagleScheduler",
    "corrected-jacobi": "corrected_jacobi.CorrectedJacobiScheduler",
    "revised-jacobi": "revised_jacobi.RevisedJacobiScheduler",
    "par": "parallel_groups.ParallelGroupsScheduler",
}
_BASES = ("base.DecodingScheduler", "raster_window.RasterWindowScheduler", "row_parallel.RowParallelScheduler")
EXPORTS = exports_of((*_BASES, *_PLACES.values()))  # module -> what the package exports of it
SCHEDULERS = Registry(__package__, _PLACES)
