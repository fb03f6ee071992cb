"""The arithmetic of the analysis nodes: texts, numbers per token and masks from reports and tokens."""

from collections.abc import Callable

import torch

from sjd_pipelines.decoding.runner import Execution

from .labels import LABELS
from .types import Report, Tokens


def describe(report: Report) -> str:
    """A report in words."""
    statistics = report.statistics
    settings = " ".join(f"{name}={value}" for name, value in report.settings.items())
    title = "" if report.title == report.decoder else f"{report.title}: "
    prompts = [f"prompt: {report.prompt}", f"negative prompt: {report.negative_prompt}"]
    pictures = [
        f"picture {index}: seed {seed}, {passes} passes, {report.tokens / passes:.2f} tokens per pass"
        for index, (seed, passes) in enumerate(zip(report.seeds, statistics.forward_passes), 1)
    ]
    seconds = f"{report.seconds:.2f} s for {len(pictures)} picture{'s' if len(pictures) > 1 else ''}"
    return "\n".join(
        [
            f"{title}{report.decoder} {settings}".strip(),
            f"{round(report.passes, 1):g} passes, {report.tokens / report.passes:.2f} tokens per pass, {seconds}",
            *pictures,
            *(prompts if report.negative_prompt else prompts[:1]),
            ", ".join(f"{name} {value:g}" for name, value in report.sampling.items()),
            *([] if statistics.execution is None else [_executed(statistics.execution)]),
            f"{report.width} x {report.height} pixels from {report.tokens} tokens",
            LABELS[statistics.label],
            *report.remarks,
        ]
    )


def _executed(execution: Execution) -> str:
    """How compiled passes were executed, in a line."""
    made = f"{execution.graphs} graph{'' if execution.graphs == 1 else 's'} made in {execution.seconds:.1f} s"
    failed = f" ({execution.as_recorded} uncompiled: the compiler failed)" if execution.as_recorded else ""
    return f"compiled: {execution.replayed} passes replayed{failed}, {made}, {execution.nbytes / 2**20:.1f} MiB"


def caption(report: Report) -> str:
    """A run in a line."""
    return f"{report.title}: {round(report.passes, 1):g} passes, {report.seconds:.1f} s"


def compare(a: Report, b: Report, differing: torch.Tensor | None) -> str:
    """Two reports in words; `differing` is `[B, rows, columns]` bool."""
    lines = [
        f"{side}: {report.title}, {report.statistics.label}, {round(report.passes, 1):g} passes, "
        f"{report.seconds:.2f} s"
        for side, report in (("A", a), ("B", b))
    ]
    lines.append(
        f"A takes {b.passes / a.passes:.2f} times fewer passes and is {b.seconds / a.seconds:.2f} times as fast as B."
    )
    if differing is not None:
        count, total = int(differing.sum()), differing.numel()
        equal = "All tokens are equal: the pictures are the same."
        lines.append(f"{count} of {total} tokens differ ({count / total:.1%})." if count else equal)
    return "\n".join(lines)


def differing(a: Tokens, b: Tokens) -> torch.Tensor:
    """`[B, rows, columns]` bool: where the tokens of two runs differ."""
    if a.ids.shape != b.ids.shape or a.layout != b.layout:
        raise ValueError(
            f"The runs cannot be compared token by token: {len(a.ids)} pictures of {a.width} x {a.height} pixels and "
            f"{len(b.ids)} of {b.width} x {b.height}. Give both samplers the same model, size and batch_size."
        )
    return (a.ids != b.ids).unflatten(1, (a.layout.rows, a.layout.columns))


def finishing_step(report: Report) -> torch.Tensor:
    """`[B, rows, columns]` float32 in 0..1: the pass that finished each token, of the most any picture took."""
    steps = report.statistics.acceptance_map[..., : report.columns].float()
    return steps / max(1, max(report.statistics.forward_passes) - 1)


def finished_together(report: Report) -> torch.Tensor:
    """`[B, rows, columns]` float32 in 0..1: tokens finished in the same pass, of the most in any pass."""
    steps = report.statistics.acceptance_map[..., : report.columns].long()
    most = max(max(committed) for committed in report.statistics.committed_per_pass)
    counts = [torch.tensor(committed)[row] for committed, row in zip(report.statistics.committed_per_pass, steps)]
    return torch.stack(counts).float() / most


METRICS: dict[str, Callable[[Report], torch.Tensor]] = {"step": finishing_step, "together": finished_together}


def enlarge(cells: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`[B, rows, columns, C]` -> `[B, height, width, C]`, every cell a rectangle of one colour."""
    rows = torch.arange(height) * cells.shape[1] // height
    columns = torch.arange(width) * cells.shape[2] // width
    return cells[:, rows][:, :, columns]
