"""The style sheet of the decoder report, light and dark."""

TONES = {
    "exact": ("#0b62b0", "#0a8471", "#5546d0", "#0e7fae", "#334155", "#1e3a8a", "#059669"),
    "lossless": ("#c2410c", "#a16a00", "#c42a63", "#7a5230", "#d9480f"),
    "approximate": ("#7c3aed", "#4d7c0f", "#be185d", "#0f766e", "#b45309", "#1d4ed8", "#64748b"),
}

_SHEET = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --text: #1b1f24; --soft: #5b6470; --line: #e3e5e8;
  --good: #0a7d4f; --bad: #c02626; --lift: 0%; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #191d24; --text: #e6e9ee; --soft: #9aa4b2;
  --line: #2c323c; --good: #4ccf96; --bad: #ff7b72; --lift: 42%; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 52px 0 6px; letter-spacing: -0.005em; }
h3 { font-size: 14px; margin: 0 0 6px; font-weight: 600; }
p { margin: 6px 0 14px; max-width: 96ch; }
.soft, figcaption, small { color: var(--soft); }
small { font-size: 12px; }
code, pre { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 10px 0 16px; padding: 0; list-style: none;
  font-size: 13px; }
.facts b { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 18px; max-width: 96ch; margin: 12px 0; }
dt { font-weight: 600; } dd { margin: 0; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: 10px 0 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 11px; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; white-space: normal; color: var(--soft); font-weight: 600; font-size: 12px;
  vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td:first-child { font-weight: 600; } td small { font-weight: 400; display: block; }
.text th, .text td { text-align: left; white-space: normal; }
.chip { display: inline-block; padding: 1px 9px; border-radius: 99px; font-size: 12px; font-weight: 600;
  color: var(--ink); background: color-mix(in srgb, var(--ink) 14%, transparent); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); gap: 16px; }
.bars { display: grid; grid-template-columns: repeat(auto-fill, minmax(255px, 1fr)); gap: 12px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: 12.5px; margin-top: 6px; }
svg text { fill: var(--soft); font: 11.5px system-ui, sans-serif; }
svg .axis { font-weight: 600; } .grid line { stroke: var(--line); }
.series polyline { fill: none; stroke: var(--ink); stroke-width: 2; stroke-linejoin: round; }
.series circle { fill: var(--ink); stroke: var(--card); stroke-width: 1; }
.series.lossless polyline { stroke-dasharray: 7 3; } .series.approximate polyline { stroke-dasharray: 2 3; }
.name text { fill: var(--ink); font-weight: 600; } .name path { stroke: var(--ink); fill: none; opacity: .45; }
rect.bar { fill: var(--ink); } .meter .track { fill: var(--line); }
.meter .limit { stroke: var(--text); stroke-width: 1.5; }
.meter { vertical-align: middle; margin-right: 8px; } .meter .bar { fill: var(--ink); }
.pictures th { text-align: left; white-space: normal; max-width: 270px; }
.pictures td { vertical-align: top; text-align: left; }
.pair { display: flex; gap: 6px; } .pair img { width: 128px; height: 128px; border-radius: 6px; }
.nowrap { white-space: nowrap; }
.overview th:nth-child(2), .overview td:nth-child(2), .overview th:nth-child(4), .overview td:nth-child(4) {
  text-align: left; }
.map { image-rendering: pixelated; }
.ramp { display: inline-block; width: 120px; height: 10px; border-radius: 5px; vertical-align: middle; margin: 0 8px; }
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def style_sheet() -> str:
    """The sheet with one rule per tone; on dark pages tones are lifted towards white."""
    tones = "".join(
        f".tone-{label}-{index} {{ --ink: color-mix(in oklab, {colour}, white var(--lift)); }}\n"
        for label, colours in TONES.items()
        for index, colour in enumerate(colours)
    )
    return _SHEET + tones


def tone(label: str, index: int) -> str:
    """Class of the `index`-th series of a label; colours repeat when there are more series than colours."""
    return f"tone-{label}-{index % len(TONES[label])}"
