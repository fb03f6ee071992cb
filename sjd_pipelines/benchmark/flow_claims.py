"""What is claimed of the solvers, held against what was measured."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from .flow_strategies import STRATEGY_BOUNDS

FEWER = {"exact": 8.0, "safe": 12.0, "fast": 16.0}  # times fewer serial passes than sequential sampling, at least
HALF = 0.5  # of the passes of the best strategy in the published style
FASTER = 2.0  # times, one picture at a time on a CPU


@dataclass(frozen=True)
class Claim:
    """One line.

    Attributes:
        cell: batch size and guidance.
        words: what is claimed.
        measured: what was found, in words.
        holds: whether it is so.
    """

    cell: str
    words: str
    measured: str
    holds: bool


def claims_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every claim on a report of `measure_flow`, as JSON; none where the line-up was not measured."""
    return [asdict(claim) for cell in report["cells"] if cell["calibrations"] for claim in _of_cell(cell)]


def _of_cell(cell: dict[str, Any]) -> Iterator[Claim]:
    name = f"batch {cell['batch_size']}, guidance {cell['guidance_scale']:g}"
    rows = {row["chosen"]: row for row in cell["results"] if row["chosen"]}
    sequential = cell["results"][0]
    yield _rounded(name, rows["exact, passes"], cell["rounding"])
    yield _wide(name, cell["wide"])
    for mode, least in FEWER.items():
        row, bound = rows[f"{mode}, passes"], STRATEGY_BOUNDS[mode]
        fewer = sequential["passes"] / row["passes"]
        yield Claim(
            name,
            f"{mode} plan: at least {least:g} times fewer passes than sequential, error up to {bound:g}",
            f"{fewer:.1f} times fewer ({row['passes']:.1f}), error {row['error']:.1e}",
            fewer >= least and row["error"] <= bound,
        )
        strategy = rows[f"searched, {mode}"]
        share = row["passes"] / strategy["passes"]
        yield Claim(
            name,
            f"{mode} plan: at most half the passes of the best strategy in the published style",
            f"{share:.2f} of {strategy['passes']:.1f} passes ({strategy['entry']}, error {strategy['error']:.1e})",
            share <= HALF,
        )
        timed = rows[f"{mode}, seconds"]
        faster, alone = timed["speedup"]["median"], cell["batch_size"] == 1
        yield Claim(
            name,
            f"{mode} plan: {f'at least {FASTER:g} times as fast as' if alone else 'never slower than'} sequential",
            f"{faster:.2f} times as fast, error {timed['error']:.1e}",
            faster >= FASTER if alone else faster >= 1 or _all_sequential(timed),
        )
    if sequential["object"] is not None:
        planned = [row for chosen, row in rows.items() if chosen in cell["calibrations"]]
        yield _judged(name, sequential["object"], planned, cell["pictures"])


def _rounded(name: str, row: dict[str, Any], rounding: float) -> Claim:
    return Claim(
        name,
        "exact plan: error up to twice what sequential sampling itself moves by in another batch",
        f"error {row['error']:.1e}, sequential moves by {rounding:.1e}",
        row["error"] <= 2 * rounding,
    )


def _wide(name: str, wide: dict[str, float]) -> Claim:
    least, bound = FEWER["exact"], STRATEGY_BOUNDS["exact"]
    fewer = wide["sequential_passes"] / wide["passes"]
    return Claim(
        name,
        f"frontier in float64: at least {least:g} times fewer passes than sequential, error up to {bound:g}",
        f"{fewer:.1f} times fewer ({wide['passes']:.1f}), error {wide['error']:.1e}",
        fewer >= least and wide["error"] <= bound,
    )


def _judged(name: str, sequential: float, planned: list[dict[str, Any]], count: int) -> Claim:
    """Two standard deviations of a share of so many pictures, and one picture, are within noise."""
    noise = 2 * sqrt(sequential * (1 - sequential) / count) + 1 / count
    shares = [row["object"] for row in planned]
    return Claim(
        name,
        "the judge sees the right object as often as with sequential sampling, in every mode",
        f"{min(shares):.1%} to {max(shares):.1%}, sequential {sequential:.1%} of {count}; "
        f"{min(row['same'] for row in planned):.1%} or more are read as the same",
        all(abs(share - sequential) <= noise for share in shares),
    )


def _all_sequential(row: dict[str, Any]) -> bool:
    return set(row["entry"].split("; ")) == {"sequential"}
