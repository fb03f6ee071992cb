"""Writes what follows from elsewhere: the pages of the nodes in comfy_nodes/web/docs, and tables of README and notes.

`python tests/comfy_nodes/make_docs.py`; it needs no ComfyUI. What a page says below the table of outputs is written by
hand, and kept.
"""

import json
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sjd_pipelines import FLOW_SOLVERS, SCHEDULERS
from sjd_pipelines.pipelines.families import FAMILIES
from sjd_pipelines.training.par_compare import comparison_table

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "comfy_nodes" / "web" / "docs"
README = ROOT / "README.md"
RESULTS = ROOT / "sjd_pipelines" / "benchmark" / "results"
NOTES = RESULTS / "report" / "NOTES.md"
SPEEDS = {README: RESULTS / "cpu_defaults.json", NOTES: RESULTS / "cpu_guidance3.json"}
ORDERS = RESULTS / "par.json"
FLOWS = RESULTS / "emoji_flow.json"
MODES = ("exact", "safe", "fast")
COMMAND = "python tests/comfy_nodes/make_docs.py"


def documents(nodes: Mapping[str, Any]) -> dict[Path, str]:
    """File -> what it should say, of node classes by id."""
    pages = {PAGES / f"{node_id}.md": node for node_id, node in nodes.items()}
    return {path: page(node, _by_hand(path)) for path, node in pages.items()} | {
        README: with_flows(with_orders(with_tables(with_speeds(README)))),
        NOTES: with_speeds(NOTES),
    }


def page(node: Any, by_hand: str = "") -> str:
    """The page of a node: what it is, when to take it, its inputs and outputs, and what was written by hand."""
    schema = node.define_schema()
    parts = [f"# {schema.display_name}", schema.description]
    for attribute, registry in (("scheduler", SCHEDULERS), ("solver", FLOW_SOLVERS)):
        if hasattr(node, attribute):
            parts.append(registry[getattr(node, attribute)].card.advice)
    if hasattr(node, "kind") and (rows := _downloads(node.kind)):
        headers = ("model", "to download", "memory as bf16", "command, in ComfyUI's folder")
        parts += ["## Models to download", table(headers, rows)]
    if schema.inputs:
        rows = [(one.id, _start(one), one.tooltip) for one in schema.inputs]
        parts += ["## Inputs", table(("input", "starts as", "what it does"), rows)]
    rows = [(one.display_name, one.tooltip) for one in schema.outputs]
    parts += ["## Outputs", table(("output", "what it is"), rows)]
    return "\n\n".join([*parts, *([by_hand] if by_hand else [])]) + "\n"


def with_tables(readme: str) -> str:
    """README with its tables of schedulers and solvers made anew."""
    claims = {"name": [(name, cls, cls.claim()) for name, cls in SCHEDULERS.items()]}
    claims["solver"] = [(name, cls, cls.claim) for name, cls in FLOW_SOLVERS.items()]
    for title, entries in claims.items():
        rows = [
            (f"`{name}`", f"`{cls.__name__}`", claim, f"{cls.card.summary.split('. ')[0].rstrip('.')}.", cls.paper)
            for name, cls, claim in entries
        ]
        made = table((title, "class", "label", "what it does", "source"), rows)
        readme = _with_table(readme, f"| {title} | class |", made)
    return readme


def with_orders(readme: str) -> str:
    """README with its table of generation orders made anew from what was measured."""
    return _with_table(readme, "| model | scheduler |", comparison_table(json.loads(ORDERS.read_text())))


def with_flows(readme: str) -> str:
    """README with its table of what solvers cost, at the guidance that its model has, made anew from a benchmark."""
    report = json.loads(FLOWS.read_text())
    guidance = report["method"]["sampling"]["guidance_scale"]
    cells = [cell for cell in report["cells"] if cell["guidance_scale"] == guidance]
    headers = ["flow solver"]
    for cell in cells:
        pictures = "a picture alone" if cell["batch_size"] == 1 else f"{cell['batch_size']} together"
        headers += [f"passes, {pictures}", "times fewer", "times as fast", "error"]
    rows = [[title, *(text for cell in cells for text in _costs(cell, chosen))] for title, chosen in _flow_rows()]
    return _with_table(readme, "| flow solver |", table(headers, rows))


def _flow_rows() -> list[tuple[str, str]]:
    """Rows of the table of flows: what README says of one, and what the benchmark chose it for, or its name."""
    rows = [("`sequential`", "sequential"), ("`flow-jacobi`", "flow-jacobi"), ("`frontier`", "frontier")]
    for mode in MODES:
        rows.append((f"{mode}: best `gauss-seidel-jacobi` in the published style", f"searched, {mode}"))
        rows += [(f"{mode}: fewest {cost}", f"{mode}, {cost}") for cost in ("passes", "seconds")]
    return rows


def _costs(cell: Mapping[str, Any], chosen: str) -> list[str]:
    """Passes, how many times fewer and faster than sequentially, and the error, of one solver at a batch size."""
    results = {result["chosen"] or result["entry"]: result for result in cell["results"]}
    passes, result = results["sequential"]["passes"], results[chosen]
    same = result["passes"] == passes and not result["error"]  # then its seconds are a second measurement
    return [
        f"{result['passes']:.0f}",
        f"{passes / result['passes']:.1f}",
        "1" if same else f"{result['speedup']['median']:.2f}",
        f"{result['error']:.0e}" if result["error"] else "0",
    ]


def _with_table(page: str, begin: str, made: str) -> str:
    """A page with the table that begins so made anew."""
    pattern = rf"^{re.escape(begin)}.*\n(?:\|.*\n)*"
    page, count = re.subn(pattern, lambda _: f"{made}\n", page, flags=re.MULTILINE)
    assert count == 1, f"there is no table that begins {begin}"
    return page


def with_speeds(page: Path) -> str:
    """A page with its table of speeds filled from what was measured; which rows it has is written by hand."""
    text, results = page.read_text(encoding="utf-8"), json.loads(SPEEDS[page].read_text())["results"]
    head, begin, rest = text.partition("| | passes | tokens per pass |")
    title, rule, *lines = rest.split("\n\n")[0].split("\n")
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines]
    made = [" | ".join([f"| {name}", *_speed(_result_of(name, results))]) + " |" for name in names]
    return head + begin + "\n".join([title, rule, *made]) + rest.removeprefix("\n".join([title, rule, *lines]))


def _result_of(row: str, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The result that a row names: a scheduler, its window, and settings that are not its defaults."""
    told = re.match(r"(?:transformers' )?`(.*?)`", row).group(1)
    name = "library" if told == "generate" else told
    given = {key: int(number) for key, number in re.findall(r"(\w+) (\d+)", row)}
    wanted = given if name == "library" else dict(SCHEDULERS[name]().config) | given
    for result in results:
        if result["name"] == name and all(wanted[key] == value for key, value in result["settings"].items()):
            return result
    raise LookupError(f"There is no result for {row}; measure it first")


def _speed(result: dict[str, Any]) -> list[str]:
    ratios = [result[name]["median"] for name in ("speedup", "library_speedup")]
    passes = f"{result['passes']:.1f}".removesuffix(".0") if result["compression"] == 1 else f"{result['passes']:.1f}"
    return [
        passes,
        f"{result['compression']:.2f}",
        f"{result['seconds']['median']:.2f}",
        *("1" if ratio == 1 else f"{ratio:.2f}" for ratio in ratios),
    ]


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (headers, *rows)]
    return "\n".join([lines[0], "|---" * len(headers) + "|", *lines[1:]])


def _downloads(kind: str) -> list[Sequence[str]]:
    """Models of a kind that load as they are published: size, memory and the command that fetches each."""
    published = [one for family in FAMILIES if family.kind == kind for one in family.published]
    return [
        (
            one.name,
            f"about {one.gigabytes:g} GB",
            f"about {one.memory:g} GB",
            f"`hf download {one.source} --local-dir models/sjd/{one.name}`",
        )
        for one in published
    ]


def _start(one: Any) -> str:
    """What an input starts as, in words."""
    if not hasattr(one, "default"):
        return "optional" if one.optional else ""
    return str(one.default).lower() if isinstance(one.default, bool) else str(one.default) or "empty"


def _by_hand(path: Path) -> str:
    """What a page says below the table of outputs."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(r"^## Outputs\n\n(?:\|.*\n)*([\s\S]*)", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def main() -> None:
    from fake_comfyui import Server

    with tempfile.TemporaryDirectory() as models:
        sys.modules.update(Server(models).modules())
        sys.path.insert(0, str(ROOT))
        from comfy_nodes import NODES

        made = documents({node.define_schema().node_id: node for node in NODES})
    for path in {*PAGES.glob("*.md")} - made.keys():
        path.unlink()
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
