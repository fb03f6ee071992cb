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


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_opens_and_runs(comfyui, page, path, tmp_path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.errors.clear()
    page.run(f"app.loadGraphData({json.dumps(workflow)}).then(() => 0)")
    nodes = page.run("app.graph._nodes.map(one => [one.type, one.type in LiteGraph.registered_node_types])")
    assert sorted(name for name, _ in nodes) == sorted(one["type"] for one in workflow["nodes"])
    assert all(known for _, known in nodes)
    # What the page would send is what the file says.
    sent = page.run("app.graphToPrompt().then(one => one.output)")
    assert {one["class_type"] for one in sent.values()} == {name for name, _ in nodes} - {"MarkdownNote"}
    seeds = {one["inputs"]["seed"] for one in sent.values() if "seed" in one["inputs"]}
    assert seeds == {7}

    done = len(comfyui.get("/history"))
    page.run("app.queuePrompt(0).then(() => 0)")
    page.wait_until(
        f"fetch('/history').then(one => one.json()).then(one => window.done = Object.keys(one).length), "
        f"window.done > {done}",
        600,
    )
    latest = list(comfyui.get("/history").values())[-1]
    assert latest["status"]["status_str"] == "success", latest["status"]
    fit(page)
    page.wait_until("app.graph._nodes.every(one => one.type !== 'PreviewImage' || one.imgs?.length)", 30)
    folder = Path(os.environ.get("SJD_SCREENSHOTS", tmp_path))
    file = folder / f"{path.stem}.png"
    page.screenshot(file)
    assert page.errors == []
    with Image.open(file) as shown:
        assert max(ImageStat.Stat(shown.convert("RGB")).stddev) > 10


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
