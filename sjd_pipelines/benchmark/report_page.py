"""The decoder report as one HTML page: no script, nothing from elsewhere, made of the report's JSON alone."""

from collections.abc import Callable
from html import escape
from math import log2, sqrt
from typing import Any

import torch
from PIL import Image

from ..pipelines.pictures import RAMP, data_uri, on_ramp
from .charts import Axis, Series, bar_chart, line_chart, meter
from .report_html import facts_list, html_page, html_table
from .report_style import tone
from .speed import overhead_text

SCORES = ("object", "count", "background", "relation", "all")
TITLES = {"window": "window", "guidance_scale": "guidance scale", "temperature": "temperature", "top_k": "top-k"}

Classes = dict[str, str]


def render_page(report: dict[str, Any], command: str, created: str) -> str:
    """The page.

    Args:
        report: as `measure_report` returns it.
        command: what made it, for the reader to repeat.
        created: date of the measurement.
    """
    classes = _classes(report["schedulers"])
    sections = [
        _head(report, command, created),
        _guide(),
        _overview(report, classes),
        _fidelity(report, classes),
        _curves(report["sweeps"], classes, report["method"]),
        _relaxed(report["relaxed"], report["method"]["per_kind"]),
        _histograms(report["schedulers"], classes),
        _pictures(report["schedulers"], classes),
        _method(report),
    ]
    return html_page(f"Decoder report: {report['facts']['model']}", sections)


def interval(rate: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate of `count` trials."""
    z = 1.96
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def map_image(acceptance_map: list[list[int]]) -> Image.Image:
    """One pixel per token, dark for the first pass and light for the last."""
    passes = torch.tensor(acceptance_map, dtype=torch.float64)
    return Image.fromarray(on_ramp(passes / passes.max().clamp(min=1)).round().byte().numpy())


def _classes(entries: list[dict[str, Any]]) -> Classes:
    """Tone and label of every scheduler, for the style sheet."""
    seen: dict[str, int] = {}
    classes = {}
    for entry in entries:
        label = entry["label"]
        classes[entry["name"]] = f"{tone(label, seen.get(label, 0))} {label}"
        seen[label] = seen.get(label, 0) + 1
    return classes


def _head(report: dict[str, Any], command: str, created: str) -> str:
    facts, method = report["facts"], report["method"]
    sampling = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in method["sampling"].items())
    items = [
        ("model", f"{facts['model']} (weights {facts['weights']})"),
        ("device", f"{facts['device']}, CPU threads: {facts['threads']}, {facts['dtype']}"),
        ("sampling", sampling),
        ("date", created),
    ]
    return (
        "<h1>Decoder report</h1><p class='soft'>Parallel decoding of autoregressive image models: what every "
        "scheduler claims, what it costs, and what it draws. Same model, prompts and seeds for all.</p>"
        f"{facts_list(items)}<pre>{escape(command)}</pre>"
    )


def _guide() -> str:
    terms = {
        "label": "<b>exact</b>: the same picture as sequential decoding for the same seed. <b>lossless</b>: another "
        "picture from the same distribution. <b>approximate</b>: biased, for fewer passes.",
        "total variation": "Distance of the pictures drawn from the true law of a model small enough to enumerate. "
        "The tick is the limit (99.99 % of unbiased samplers stay below it), the floor what sampling alone leaves.",
        "passes": "Forward passes of the transformer per picture; sequential decoding takes one per token.",
        "seconds": "Prompt to last token of one picture, all schedulers taking turns in one process. Ratios are "
        "medians of paired runs.",
        "outside transformer": "Share of the decode loop that is not spent in the transformer's layers and head. "
        "Brackets: the part of it that a draft model's or draft reviser's own network takes.",
        "fidelity": "Share of pictures of captions never trained on that show what the caption says, read by "
        "template matching, a judge that knows nothing of the model. Brackets: 95 % interval.",
    }
    return "<h2>How to read this</h2><dl>" + "".join(f"<dt>{n}</dt><dd>{t}</dd>" for n, t in terms.items()) + "</dl>"


def _overview(report: dict[str, Any], classes: Classes) -> str:
    entries = report["schedulers"]
    library = report["library"] is not None
    widest = max(max(entry["exactness"]["total_variation"] for entry in entries), 0.05)
    headers = ["scheduler", "label", "total variation (floor)", "verdict", "passes", "tokens per pass", "seconds"]
    headers += ["&times;&nbsp;sequential", *(["&times;&nbsp;library"] if library else []), "outside transformer"]
    rows = []
    for entry in entries:
        verdict, speed = entry["exactness"], entry["speed"]
        bar = meter(verdict["total_variation"], verdict["limit"], widest)
        rows.append(
            [
                escape(entry["name"]),
                f"<span class='chip'>{entry['label']}</span>",
                f"{bar}{verdict['total_variation']:.3f} ({verdict['noise_floor']:.3f})",
                _verdict(verdict),
                f"{entry['fidelity']['passes']:.1f}",
                f"{entry['fidelity']['tokens_per_pass']:.2f}",
                f"{speed['seconds']['median']:.2f}",
                f"{speed['speedup']['median']:.2f}",
                *([f"{speed['library_speedup']['median']:.2f}"] if library else []),
                overhead_text(speed["overhead"], speed["drafting"]),
            ]
        )
    tones = [classes[entry["name"]] for entry in entries]
    notes = []
    if library:
        seconds = report["library"]["seconds"]["median"]
        notes.append(f"The library is the model library's own <code>generate</code>: {seconds:.2f} seconds a picture.")
    notes += [f"Left out: {escape(name)} ({escape(reason)})." for name, reason in report["skipped"].items()]
    return (
        f"<h2>All schedulers</h2>{html_table(headers, rows, tones, 'overview')}<p class='soft'>{' '.join(notes)}</p>"
    )


def _verdict(verdict: dict[str, Any]) -> str:
    if not verdict["passed"]:
        return "<span class='bad'>breaks its label</span>"
    if verdict["label"] == "exact":
        return "<span class='good'>same pictures</span>"
    if verdict["total_variation"] <= verdict["limit"]:
        return "<span class='good'>within noise</span>"
    return "biased"


def _fidelity(report: dict[str, Any], classes: Classes) -> str:
    if not report["ceilings"]:
        return ""

    def row(name: str, scores: dict[str, float]) -> list[str]:
        return [escape(name), str(scores["n"]), *(_rate(scores, score, per_kind) for score in SCORES)]

    entries, per_kind = report["schedulers"], report["method"]["per_kind"]
    rows = [row(name, scores) for name, scores in report["ceilings"].items()]
    rows += [row(entry["name"], entry["fidelity"]["scores"]["all"]) for entry in entries]
    tones = [""] * len(report["ceilings"]) + [classes[entry["name"]] for entry in entries]
    return (
        "<h2>Prompt fidelity</h2><p>One object, counts of one to three, and relations of two objects in equal shares. "
        "Ceilings are true pictures, and true pictures after tokens and pixel decoder. Only relations have a relation "
        f"score; “all” asks for everything at once.</p>{html_table(['', 'pictures', *SCORES], rows, tones)}"
    )


def _rate(scores: dict[str, float], score: str, per_kind: int) -> str:
    if score not in scores:
        return "&ndash;"
    low, high = interval(scores[score], per_kind if score == "relation" else scores["n"])
    return f"{scores[score]:.0%} <span class='soft'>[{100 * low:.0f}&ndash;{100 * high:.0f}]</span>"


def _curves(sweeps: dict[str, dict[str, Any]], classes: Classes, method: dict[str, Any]) -> str:
    if not sweeps:
        return ""
    figures = []
    for name, sweep in sweeps.items():
        if not sweep["curves"]:
            continue
        figures.append(_curve(name, sweep, classes, "tokens_per_pass", "tokens per pass"))
        if name == "window":
            figures.append(_curve(name, sweep, classes, "seconds", "seconds per picture"))
    base = ", ".join(f"{TITLES.get(name, name)} {value:g}" for name, value in method["sweep_sampling"].items())
    return (
        f"<h2>Curves</h2><p>One setting varies, the others stay at {base}, and at each scheduler's own window. "
        f"Pictures per point, drawn together: {method['swept']}. Solid lines: exact. Dashed: lossless. Dotted: "
        f"approximate.</p>"
        f"<div class='charts'>{''.join(figures)}</div>"
    )


def _curve(name: str, sweep: dict[str, Any], classes: Classes, measure: str, title: str) -> str:
    values = sweep["values"]
    texts, places, axis_title = [f"{value:g}" for value in values], values, TITLES[name]
    if name == "top_k":
        texts, places = [str(value or "all") for value in values], range(len(values))
    elif name == "window":
        places, axis_title = [log2(value) for value in values], "window (drafts per pass)"
    axis = Axis.between(axis_title, list(zip(places, texts)))
    lines = [
        Series(
            curve["name"],
            classes[curve["name"]],
            [(place, point[measure]) for place, point in zip(places, curve["points"])],
            [f"{TITLES[name]} {value}, {point[measure]:.3g} {title}" for value, point in zip(values, curve["points"])],
        )
        for curve in sweep["curves"]
    ]
    y = Axis.spanning(title, [b for line in lines for _, b in line.points])
    return f"<figure><h3>{title.capitalize()} over {TITLES[name]}</h3>{line_chart(lines, axis, y)}</figure>"


def _relaxed(families: list[dict[str, Any]], per_kind: int) -> str:
    if not families:
        return ""
    tones = [tone("approximate", index) for index in range(len(families))]

    def chart(title: str, y_title: str, value: Callable[[dict[str, Any]], float]) -> str:
        lines = [
            Series(
                family["title"].split(",")[0],
                classes,
                [(_excess(row), value(row)) for row in family["rows"]],
                [f"{family['bound']} {row['bound']:g}, {value(row):.3g} {y_title}" for row in family["rows"]],
            )
            for family, classes in zip(families, tones)
        ]
        x = Axis.spanning("total variation above its noise floor", [a for line in lines for a, _ in line.points])
        y = Axis.spanning(y_title, [b for line in lines for _, b in line.points])
        return f"<figure><h3>{title}</h3>{line_chart(lines, x, y)}</figure>"

    judged = all(row["fidelity"] for family in families for row in family["rows"])
    headers = ["", "bound", "total variation", "floor", "passes", "tokens per pass", *(SCORES if judged else ())]
    rows, classes = [], []
    for family, tones_of in zip(families, tones):
        for index, row in enumerate(family["rows"]):
            rows.append(
                [
                    escape(family["title"]) if index == 0 else "",
                    f"{escape(family['bound'])} {row['bound']:g}",
                    f"{row['total_variation']:.3f}",
                    f"{row['noise_floor']:.3f}",
                    f"{row['passes']:.1f}",
                    f"{row['tokens_per_pass']:.2f}",
                    *(_rate(row["fidelity"], score, per_kind) for score in SCORES if judged),
                ]
            )
            classes.append(tones_of)
    charts = chart("Passes against bias", "passes per picture", lambda row: row["passes"])
    if judged:
        charts += chart("Fidelity against bias", "share all right", lambda row: row["fidelity"]["all"])
    return (
        "<h2>What relaxation buys and costs</h2><p>Approximate decoders over the bound that holds them, strictest "
        "first. Total variation is measured on the enumerable model with the same bound (row-parallel decoders: the "
        f"same share of a row), passes and fidelity on the real one, {3 * per_kind} pictures each.</p>"
        f"<div class='charts'>{charts}</div>{html_table(headers, rows, classes)}"
    )


def _excess(row: dict[str, Any]) -> float:
    return max(0.0, row["total_variation"] - row["noise_floor"])


def _histograms(entries: list[dict[str, Any]], classes: Classes) -> str:
    shares = {
        entry["name"]: [count / sum(entry["fidelity"]["committed"]) for count in entry["fidelity"]["committed"]]
        for entry in entries
        if entry["name"] != "autoregressive"
    }
    if not shares:
        return ""
    scale = Axis.spanning("share of passes", [share for given in shares.values() for share in given])
    figures = [
        f"<figure class='{classes[name]}'><h3>{escape(name)}</h3>"
        f"{bar_chart(given, 'tokens in a pass', scale)}</figure>"
        for name, given in shares.items()
    ]
    return (
        "<h2>Tokens committed per pass</h2><p>How the passes of the judged pictures divide: share of passes over the "
        f"number of tokens that a pass committed.</p><div class='bars'>{''.join(figures)}</div>"
    )


def _pictures(entries: list[dict[str, Any]], classes: Classes) -> str:
    captions = [picture["caption"] for picture in entries[0]["pictures"]]
    seeds = [picture["seed"] for picture in entries[0]["pictures"]]
    headers = ["scheduler", *(f"{escape(c)}, seed {seed}" for c, seed in zip(captions, seeds))]
    rows = [[_scheduler(entry), *(_picture(entry, picture) for picture in entry["pictures"])] for entry in entries]
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in RAMP)
    ramp = f"<span class='ramp' style='background: linear-gradient(90deg, {stops})'></span>"
    return (
        "<h2>Pictures and acceptance maps</h2><p>The same captions and seeds. Beside each picture, the pass that "
        f"committed each of its tokens: <span class='nowrap'>first{ramp}last</span>.</p>"
        + html_table(headers, rows, [classes[entry["name"]] for entry in entries], "pictures")
    )


def _scheduler(entry: dict[str, Any]) -> str:
    return f"{escape(entry['name'])}<br><span class='chip'>{entry['label']}</span>"


def _picture(entry: dict[str, Any], picture: dict[str, Any]) -> str:
    text = escape(f"{picture['caption']}, by {entry['name']}")
    shown = data_uri(map_image(picture["acceptance_map"]), "PNG")
    same = ", as sequential" if picture.get("as_sequential") and entry["name"] != "autoregressive" else ""
    return (
        f"<div class='pair'><img src='{picture['picture']}' alt='{text}'>"
        f"<img class='map' src='{shown}' alt='acceptance map'></div><small>{picture['passes']} passes{same}</small>"
    )


def _method(report: dict[str, Any]) -> str:
    facts, method = report["facts"], report["method"]
    rows = [
        [
            escape(entry["name"]),
            escape(", ".join(f"{key} {value}" for key, value in entry["settings"].items())),
            escape(entry["paper"]),
        ]
        for entry in report["schedulers"]
    ]
    return (
        "<h2>Method</h2>"
        f"<p>Labels: {method['samples']:,} pictures per scheduler of a random Janus of four tokens, all drawn in one "
        "ragged batch, against the enumerated law. Pictures per scheduler for seconds, drawn one at a time: "
        f"{method['prompts']}. For fidelity, passes and histograms, drawn in batches: {method['per_kind']} of each "
        "kind of caption. Everything is in <code>report.json</code> beside this page, tokens and acceptance maps of "
        "the pictures included.</p>"
        + facts_list(facts.items())
        + html_table(["scheduler", "settings", "source"], rows, [""] * len(rows), "text")
    )
