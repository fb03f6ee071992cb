"""The report on a flow's solvers as one HTML page, made of the report's JSON alone."""

from html import escape
from typing import Any

from .report_html import facts_list, html_page, html_table

TERMS = {
    "label": "<b>exact</b>: as near to sequential sampling as its own rounding. <b>approximate</b>: as near as the "
    "error says.",
    "passes": "Serial passes of one block, per batch; sequential sampling takes one per patch and block.",
    "token-passes": "Patches computed, per picture: the work that all passes do together.",
    "seconds": "Noise to patches of one picture, solvers taking turns in one process; on one CPU thread the time of "
    "the process. Ratios are medians of paired runs.",
    "error": "Distance from sequential sampling of the same batch, of the worst picture, as a share of its patches' "
    "root mean square. PSNR is that of finished pictures.",
    "object, same": "Share of pictures in which template matching reads their class, and of those in which it reads "
    "what it reads in the sequential ones.",
    "chosen for": "Plans are calibrated under an error for a mode (exact, safe, fast) to save passes or seconds, and "
    "strategies in the published style searched for under the same errors, both on other noise than is measured "
    "here.",
}


def render_flow_page(report: dict[str, Any], command: str, created: str) -> str:
    """The page.

    Args:
        report: as `measure_flow` returns it, and `claims`.
        command: what made it, for the reader to repeat.
        created: date of the measurement.
    """
    facts, method = report["facts"], report["method"]
    sampling = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in method["sampling"].items())
    items = [
        ("model", f"{facts['model']} (weights {facts['weights']})"),
        ("device", f"{facts['device']}, CPU threads: {facts['threads']}, {facts['dtype']}"),
        ("sampling", sampling),
        ("date", created),
    ]
    head = (
        "<h1>Flow report</h1><p class='soft'>Solvers of a normalizing flow: what each costs, and how far it ends from "
        f"sequential sampling. Same classes and noise for all.</p>{facts_list(items)}<pre>{escape(command)}</pre>"
    )
    terms = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in TERMS.items())
    sections = [head, f"<h2>How to read this</h2><dl>{terms}</dl>", _claims(report["claims"])]
    sections += [_cell(cell) for cell in report["cells"]]
    sections.append(f"<h2>Method</h2>{facts_list(facts.items())}")
    return html_page(f"Flow report: {facts['model']}", sections)


def _claims(claims: list[dict[str, Any]]) -> str:
    if not claims:
        return ""
    rows = [
        [
            "<span class='good'>holds</span>" if claim["holds"] else "<span class='bad'>fails</span>",
            *(escape(claim[name]) for name in ("cell", "words", "measured")),
        ]
        for claim in claims
    ]
    return f"<h2>Claims</h2>{html_table(['', 'where', 'claim', 'measured'], rows, [''] * len(rows), 'text')}"


def _cell(cell: dict[str, Any]) -> str:
    headers = [
        "solver",
        "chosen for",
        "label",
        "passes",
        "token-passes",
        "seconds",
        "&times;&nbsp;sequential",
        "error",
    ]
    headers += ["PSNR worst", "PSNR mean", "object", "same"]
    rows = [[escape(text) for text in row_of(result)] for result in cell["results"]]
    plans = [[escape(chosen), escape(found["plan"])] for chosen, found in cell["calibrations"].items()]
    made = html_table(["plan", "blocks, from the noise to the picture"], plans, [""] * len(plans), "text")
    return (
        f"<h2>Batch size {cell['batch_size']}, guidance {cell['guidance_scale']:g}</h2>"
        f"<p class='soft'>{cell['pictures']} pictures.</p>{html_table(headers, rows, [''] * len(rows))}"
        f"{made if plans else ''}"
    )


def row_of(result: dict[str, Any]) -> list[str]:
    """A row of the table, on the page and in a terminal."""
    ratio, psnr = result["speedup"], result["psnr"]
    settings = "" if result["name"] == "planned" else result["entry"].partition(" ")[2]
    return [
        f"{result['name']} {settings}".strip(),
        result["chosen"] or "-",
        result["label"],
        f"{result['passes']:.1f}",
        f"{result['token_passes']:.0f}",
        f"{result['seconds']['median']:.3f}",
        f"{ratio['median']:.2f} ({ratio['minimum']:.2f}-{ratio['maximum']:.2f})",
        f"{result['error']:.1e}",
        *("equal" if psnr is None else f"{psnr[one]:.0f} dB" for one in ("worst", "mean")),
        *("-" if result[one] is None else f"{result[one]:.0%}" for one in ("object", "same")),
    ]
