"""The workflows that come with the pack: nodes and values known, seeds fixed, a thumbnail each."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ..fixtures.recording import RECORDED
from .graph_run import CORE
from .graphs import NOTE

FOLDER = Path(__file__).parents[2] / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
SAVED = [path for version in RECORDED for path in sorted(version.glob("workflows/*.json"))]  # by earlier versions


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_there_is_one_for_each_use():
    names = ["acceptance_map", "class_to_image_with_a_flow", "compare_with_sequential", "decoder_grid"]
    names += ["text_to_image"]
    assert [path.stem for path in WORKFLOWS] == names


@pytest.mark.parametrize("path", WORKFLOWS + SAVED, ids=lambda path: path.relative_to(FOLDER.parent).as_posix())
def test_nodes_inputs_and_values_are_known(path, nodes):
    workflow = read(path)
    assert {node["type"] for node in workflow["nodes"]} <= {*nodes, *CORE, NOTE}
    for node in workflow["nodes"]:
        if node["type"] not in nodes:
            continue
        linked = [one["name"] for one in node["inputs"]]
        inputs = nodes[node["type"]].define_schema().inputs
        assert set(linked) <= {one.id for one in inputs}
        values = iter(node["widgets_values"])
        for one in inputs:
            if one.id in linked:
                continue
            value = next(values, one.default if path in SAVED else None)  # inputs may have been appended since
            if hasattr(one, "options"):
                assert value in one.options
            elif hasattr(one, "min"):
                assert one.min <= value <= one.max
            if getattr(one, "control_after_generate", False):
                assert next(values) == "fixed"
        assert list(values) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_links_join_outputs_to_inputs_of_their_type(path):
    workflow = read(path)
    by_id = {node["id"]: node for node in workflow["nodes"]}
    for number, source, slot, target, socket, io_type in workflow["links"]:
        assert number in by_id[source]["outputs"][slot]["links"]
        assert by_id[source]["outputs"][slot]["type"] == io_type
        assert by_id[target]["inputs"][socket]["link"] == number
        assert by_id[target]["inputs"][socket]["type"] in (io_type, "*")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_thumbnails(path):
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 128
    assert path.with_suffix(".jpg").stat().st_size < 100_000
