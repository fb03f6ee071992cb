"""Sums up what was measured of a student, and writes it as the folder of the bundled model `emoji-fast`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np

from ..bundled import bundled_folder
from ..companions import COMPANIONS
from ..disk import read_object
from ..distillation.student import NAME as RUN_NAME
from ..distillation.student import load_form
from ..emoji.glyphs import GRID
from ..emoji.scenes import KINDS
from ..learning.saved import as_saved, last_entry
from ..learning.timed import run_files
from ..pipelines.adapters import CONFIG, RECORD, WEIGHTS
from .bundle import write_bundle
from .emoji_fast import ENTROPY_SHARE, FEWER, FEWER_GREEDY, JUDGE_POINTS, KL_BOUND
from .fast_card import fast_card
from .fast_evaluation import EXITS, OTHER, PARTS, QUANTITIES, REVISED, SAMPLINGS, SEEDED, TEACHER, Figures

NAME = "emoji-fast"
TOKENS = GRID * GRID
SIGNIFICANT = 1.63  # times sqrt(2 / n): a Kolmogorov-Smirnov distance that chance exceeds once in a hundred times


def export_fast(
    adapter: str | Path,
    runs: Sequence[str | Path],
    figures: str | Path,
    target: str | Path | None = None,
    options: Sequence[str] = (),
) -> Path:
    """Write an adapter with its reviser, what was measured of it, and its card.

    Args:
        adapter: its folder, by whose name the figures know it.
        runs: folders of the distillation, each of a run that began with the one before; the adapter is of the last.
        figures: folder of the evaluation.
        target: None is the bundled folder.
        options: that each run was started with, for the card.

    Raises:
        ValueError: something was not measured; or there are options for more or fewer runs.
    """
    adapter = Path(adapter)
    if len(options) != len(runs):
        raise ValueError(f"Give the options of each run: there are {len(runs)} runs, and {len(options)} options.")
    training = _training([Path(run) for run in runs], adapter, options)
    results = summarise(Path(figures), adapter.name) | {"training": training}

    def write(bundle: Path) -> None:
        for name in (CONFIG, WEIGHTS, RECORD):
            shutil.copy(adapter / name, bundle / name)
        for name in COMPANIONS:
            if (adapter / name).is_dir():
                shutil.copytree(adapter / name, bundle / name)

    target = bundled_folder(NAME) if target is None else Path(target)
    return write_bundle(target, write, results, fast_card(results))


def summarise(folder: Path, student: str) -> dict[str, Any]:
    """What was measured of a student and its teacher; exits, revised drafts and other models as far as they were.

    Returns:
        JSON: `passes`, `laws`, `exits`, `judge`, `distributions`, `others` and, held against what was promised,
        `gates` and `goals`.

    Raises:
        ValueError: something is missing.
    """
    parts = {part: _figures(folder / f"{part}.json") for part in PARTS}
    missing = [
        f"{part} of {name}"
        for part, name in (("laws", student), *product(("passes", "pictures"), (TEACHER, student)))
        if not parts[part].get(name)
    ]
    if missing:
        raise ValueError(f"{folder} has no {', '.join(missing)}; measure it with fast-evaluate.")
    laws, names = parts["laws"], [TEACHER, student]
    exits = [k for k in map(str, EXITS) if all(k in parts["exits"].get(name, {}) for name in names)]
    results = {
        "passes": _passes(parts["passes"], names, SEEDED, "seeded-jacobi")
        + _passes(parts["revised"], names, REVISED, "revised-jacobi"),
        "laws": laws[student]["defaults"],
        "exits": {name: {k: parts["exits"][name][k] for k in exits} for name in names},
        "judge": _judge(parts["pictures"], student),
        "distributions": _distributions(parts["pictures"], student),
        "others": [_other(parts, name) for name in sorted(laws.keys() - {*names})],
    }
    return results | {"gates": _gates(results), "goals": _goals(results)}


def _figures(file: Path) -> Figures:
    return read_object(file)["figures"] if file.exists() else {}


def _training(runs: Sequence[Path], adapter: Path, options: Sequence[str]) -> dict[str, Any]:
    """How far each run came, how it was started, and how much of the last one the adapter has."""
    form, told = load_form(runs[-1]), []
    for run, given in zip(runs, options):
        log = run_files(run, RUN_NAME)[-1]
        last = last_entry(log)
        with as_saved(log):
            told.append({name: last[name] for name in ("step", "images", "seconds", "machine")} | {"options": given})
    scale = read_object(adapter / CONFIG)["lora_alpha"] / form.alpha
    return {"runs": told, "rank": form.rank, "alpha": form.alpha, "scale": scale}


def _passes(figures: Figures, names: Sequence[str], decoders: dict, scheduler: str) -> list[dict[str, Any]]:
    """A row for each decoder and sampling setting that both were measured with: passes of teacher and student."""
    rows = []
    for title in decoders:
        for sampling in SAMPLINGS:
            key = f"{title}, {sampling}"
            if not all(key in figures.get(name, {}) for name in names):
                continue
            teacher, student = (mean(figures[name][key]) for name in names)
            row = {"decoder": f"{scheduler}, {title}", "sampling": sampling, "teacher": teacher, "student": student}
            rows.append(row | {"fewer": teacher / student, "tokens_per_pass": TOKENS / student})
    return rows


def _judge(figures: Figures, student: str) -> dict[str, dict[str, float]]:
    """By kind, the share of pictures that are right: of the teacher, of it with other seeds, and of the student."""
    teacher = figures[TEACHER]
    return {
        kind: {
            "n": len(teacher[kind]["right"]),
            "teacher": mean(teacher[kind]["right"]),
            "teacher_other_seeds": mean(teacher[kind + OTHER]["right"]),
            "student": mean(figures[student][kind]["right"]),
        }
        for kind in KINDS
    }


def _distributions(figures: Figures, student: str) -> dict[str, dict[str, Any]]:
    """By quantity, means and deviations, and Kolmogorov-Smirnov distances from the teacher with other seeds."""
    found = {}
    for quantity in QUANTITIES:
        own, other, drawn = (
            [value for kind in KINDS for value in figures[name][kind + suffix][quantity]]
            for name, suffix in ((TEACHER, ""), (TEACHER, OTHER), (student, ""))
        )
        found[quantity] = {
            "teacher": [mean(own), pstdev(own)],
            "student": [mean(drawn), pstdev(drawn)],
            "distance": distance(drawn, other),
            "teacher_distance": distance(own, other),
            "chance": SIGNIFICANT * (2 / len(other)) ** 0.5,
        }
    return found


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sample Kolmogorov-Smirnov statistic: the largest difference of the cumulative shares."""
    points = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(values), points, side="right") / len(values) for values in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def _other(parts: dict[str, Figures], name: str) -> dict[str, Any]:
    """A student that was not chosen, in a row."""
    laws = parts["laws"][name]["defaults"]
    row = {"model": name, "kl": laws["kl"], "entropy_share": laws["entropy"] / laws["teacher_entropy"]}
    for sampling in SAMPLINGS:
        key = f"window 16, {sampling}"
        figures = parts["passes"]
        if key in figures.get(name, {}):
            row[sampling] = mean(figures[TEACHER][key]) / mean(figures[name][key])
    if pictures := parts["pictures"].get(name):
        row["right"] = mean(right for kind in pictures.values() for right in kind["right"])
    if exits := parts["exits"].get(name):
        row["exits"] = exits
    return row


def _row(results: dict[str, Any], decoder: str, sampling: str) -> dict[str, Any]:
    for row in results["passes"]:
        if (row["decoder"], row["sampling"]) == (decoder, sampling):
            return row
    raise ValueError(f"{decoder} at {sampling} was not measured of teacher and student; see fast-evaluate.")


def _gates(results: dict[str, Any]) -> list[dict[str, Any]]:
    laws = results["laws"]
    gates = [
        _at_least(
            f"times fewer passes, {sampling}, {window}",
            _row(results, f"seeded-jacobi, {window}", sampling)["fewer"],
            bound,
        )
        for sampling, bound in (("defaults", FEWER), ("temperature 0", FEWER_GREEDY))
        for window in SEEDED
    ]
    gates += [
        _at_least("share of the teacher's entropy", laws["entropy"] / laws["teacher_entropy"], ENTROPY_SHARE),
        _at_most("KL from the teacher, nats a token", laws["kl"], KL_BOUND),
    ]
    for kind, row in results["judge"].items():
        points = round(100 * (row["teacher"] - row["student"]), 6)  # 1 - 0.98 is a little more than 0.02
        gates.append(_at_most(f"points behind the teacher, {kind}", points, JUDGE_POINTS))
    for quantity, row in results["distributions"].items():
        gates.append(_at_most(f"distance of distributions, {quantity}", row["distance"], row["chance"]))
    return gates


def _goals(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What was hoped for, as far as it was measured."""
    wide = "revised-jacobi, window 63"
    hoped = [
        (f"times fewer passes, defaults, {window}", f"seeded-jacobi, {window}", "defaults", "fewer", 1.8)
        for window in SEEDED
    ]
    hoped += [
        ("tokens a pass with 64 slots", wide, "defaults", "tokens_per_pass", 10),
        ("tokens a pass with 64 slots at guidance 3", wide, "guidance 3", "tokens_per_pass", 5),
    ]
    rows = {(row["decoder"], row["sampling"]): row for row in results["passes"]}
    return [
        _at_least(what, rows[decoder, sampling][figure], bound)
        for what, decoder, sampling, figure, bound in hoped
        if (decoder, sampling) in rows
    ]


def _at_least(what: str, value: float, bound: float) -> dict[str, Any]:
    return {"what": what, "value": value, "at_least": bound, "held": value >= bound}


def _at_most(what: str, value: float, bound: float) -> dict[str, Any]:
    return {"what": what, "value": value, "at_most": bound, "held": value <= bound}
