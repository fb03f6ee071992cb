"""Each workflow opened and run in ComfyUI's real page; screenshots go to SJD_SCREENSHOTS if that names a folder."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from .comfyui import CHECKOUT
from .page import Page, chromium
from .test_end_to_end import WORKFLOWS

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.skipif(CHECKOUT is None, reason="COMFYUI_PATH names no ComfyUI checkout"),
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed"),
]

# No tour, nothing over the graph, text at every zoom.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "LiteGraph.Canvas.LowQualityRenderingZoomThreshold": 0.1,
}


@pytest.fixture(scope="module")
def page(comfyui, tmp_path_factory):
    for name, value in SETTINGS.items():
        comfyui.post(f"/settings/{name}", value)
    page = Page(tmp_path_factory.mktemp("chromium"))
    try:
        page.call("Page.navigate", url=comfyui.url)
        page.wait_until("window.app && app.graph && app.canvas && LiteGraph.registered_node_types['SJDSampler']")
        yield page
    finally:
        page.close()


@pytest.fixture(params=[False, True], ids=["canvas", "newer-nodes"])
def newer(request, comfyui, page):
    """Whether the page draws nodes in its newer way, which is an unfinished experiment in the oldest ComfyUI."""
    if request.param and comfyui.get("/system_stats")["system"]["comfyui_version"].startswith("0.3."):
        pytest.skip("this ComfyUI has one way to draw nodes")
    comfyui.post("/settings/Comfy.VueNodes.Enabled", request.param)
    page.run(f"app.ui.settings.setSettingValueAsync('Comfy.VueNodes.Enabled', {str(request.param).lower()})")
    return request.param


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_opens_and_runs(comfyui, page, newer, path, tmp_path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.errors.clear()
    page.run(f"app.loadGraphData({json.dumps(workflow)}).then(() => 0)")
    nodes = page.run("app.graph._nodes.map(one => [one.type, one.type in LiteGraph.registered_node_types])")
    assert sorted(name for name, _ in nodes) == sorted(one["type"] for one in workflow["nodes"])
    assert all(known for _, known in nodes)
    # What the page would send is what the file says.
    sent = page.run("app.graphToPrompt().then(one => one.output)")
    assert {one["class_type"] for one in sent.values()} == {name for name, _ in nodes} - {"MarkdownNote"}
    assert 7 in seeds_of(sent)
    fit(page)
    assert overlapping(page, newer) == []

    run_page(comfyui, page)
    assert seeds_of(page.run("app.graphToPrompt().then(one => one.output)")).isdisjoint({7})
    fit(page)
    page.wait_until("app.graph._nodes.every(one => one.type !== 'PreviewImage' || one.imgs?.length)", 30)
    for node_id, words in (("SJDReport", "tokens per pass"), ("SJDCompare", "times fewer passes")):
        page.wait_until(
            f"app.graph._nodes.filter(one => one.type === '{node_id}').every(one => one.widgets.some("
            f"widget => String(widget.value?.value ?? widget.value).includes('{words}')))",
            30,
        )
    assert overlapping(page, newer) == []
    folder = Path(os.environ.get("SJD_SCREENSHOTS", tmp_path))
    file = folder / f"{path.stem}{' newer' if newer else ''}.png"
    page.screenshot(file)
    assert page.errors == []
    with Image.open(file) as shown:
        assert max(ImageStat.Stat(shown.convert("RGB")).stddev) > 10


def seeds_of(prompt):
    """The seeds that are typed in a graph."""
    types = {"PrimitiveInt": "value", "SJDSampler": "seed", "SJDFlowSampler": "seed"}
    found = [one["inputs"][types[one["class_type"]]] for one in prompt.values() if one["class_type"] in types]
    return {seed for seed in found if not isinstance(seed, list)}


def run_page(comfyui, page):
    """Press Run, and wait until it is over."""
    done = len(comfyui.get("/history"))
    page.run("app.queuePrompt(0).then(() => 0)")
    page.wait_until(
        f"fetch('/history').then(one => one.json()).then(one => window.done = Object.keys(one).length), "
        f"window.done > {done}",
        600,
    )
    latest = list(comfyui.get("/history").values())[-1]
    assert latest["status"]["status_str"] == "success", latest["status"]


def overlapping(page: Page, newer: bool) -> list[list[str]]:
    """Pairs of nodes that overlap on the page."""
    boxes = (
        "[...document.querySelectorAll('[data-node-id]')]"
        ".map(one => [one.dataset.nodeId, one.getBoundingClientRect()])"
        ".map(([id, box]) => [id, box.left, box.top, box.right, box.bottom])"
        if newer
        else "app.graph._nodes.map(one => [String(one.id), one.getBounding()])"
        ".map(([id, [x, y, width, height]]) => [id, x, y, x + width, y + height])"
    )
    return page.run(
        f"(() => {{ const all = {boxes};"
        "return all.flatMap((a, i) => all.slice(i + 1).filter(b => a[1] < b[3] - 1 && b[1] < a[3] - 1 && "
        "a[2] < b[4] - 1 && b[2] < a[4] - 1).map(b => [a[0], b[0]])) })()"
    )


def fit(page: Page) -> None:
    """Zoom until the whole graph is in view, clear of the page's bars."""
    page.run(
        "(() => { const area = app.graph._nodes.map(one => [...one.pos, one.pos[0] + one.size[0], one.pos[1] + "
        "one.size[1]]);"
        "const left = Math.min(...area.map(one => one[0])) - 40, top = Math.min(...area.map(one => one[1])) - 150;"
        "const right = Math.max(...area.map(one => one[2])) + 40, bottom = Math.max(...area.map(one => one[3])) + 40;"
        "const ds = app.canvas.ds, view = app.canvas.canvas.getBoundingClientRect();"
        "ds.scale = Math.min((view.width - 80) / (right - left), (view.height - 60) / (bottom - top), 1.2);"
        "ds.offset = [-left + 70 / ds.scale, -top + 40 / ds.scale];"
        "app.canvas.setDirty(true, true) })()"
    )
