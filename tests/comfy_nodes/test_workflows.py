"""The workflows that come with the pack: nodes and values known, prompts and seeds typed once, a thumbnail each."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ..fixtures.recording import RECORDED
from .graph_run import CORE, object_info, run_graph
from .graphs import NOTE, to_prompt

FOLDER = Path(__file__).parents[2] / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
SAVED = [path for version in RECORDED for path in sorted(version.glob("workflows/*.json"))]  # by earlier versions


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_there_is_one_for_each_use():
    assert [path.stem for path in WORKFLOWS] == [
        "A flow draws a class",
        "Draw a picture (app)",
        "Draw a picture",
        "Four decoders, one prompt",
        "Same picture, fewer passes",
        "Several tokens at once",
        "Where passes are saved",
    ]


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
            if not hasattr(one, "default"):
                continue
            value = next(values, one.default if path in SAVED else None)  # inputs may have been appended since
            if hasattr(one, "options"):
                assert value in one.options
            elif hasattr(one, "min"):
                assert one.min <= value <= one.max
            if getattr(one, "control_after_generate", False):
                assert next(values) == ("fixed" if path in SAVED or one.id in linked else "randomize")
        assert list(values) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_an_artist_changes_is_typed_once_and_a_second_run_draws_something_new(path):
    workflow = read(path)
    assert not {"ImageBatch", "PreviewAny"} & {node["type"] for node in workflow["nodes"]}  # deprecated, or not needed
    typed = [
        node
        for node in workflow["nodes"]
        if node["type"] in ("PrimitiveInt", "SJDSampler", "SJDFlowSampler")
        and "seed" not in [one["name"] for one in node["inputs"]]
    ]
    assert len(typed) == 1
    assert "randomize" in typed[0]["widgets_values"]
    words = [value for node in workflow["nodes"] if node["type"] != NOTE for value in node["widgets_values"]]
    assert sum(" on a " in str(value) or value in ("penguin", "rocket") for value in words) == 1


def test_a_map_shows_the_regions_that_grow_together(nodes):
    prompt = to_prompt(read(FOLDER / "Several tokens at once.json"), object_info(nodes))
    outputs = {prompt[number]["class_type"]: values for number, values in run_graph(prompt, nodes).items()}
    tokens, report = outputs["SJDSampler"]
    group, count = tokens.layout.parallel, tokens.layout.num_tokens
    passes = report.statistics.acceptance_map[0].flatten()[tokens.layout.cells(count)]  # of each token as it is made
    assert group > 1
    assert passes.tolist() == [*range(group), *(group + number // group for number in range(count - group))]
    assert outputs["SJDAcceptanceMap"][0].shape == outputs["SJDDecodeTokens"][0].shape == (1, 128, 128, 3)


def test_one_opens_as_an_app():
    apps = {path.stem: read(path) for path in WORKFLOWS if read(path)["extra"].get("linearMode")}
    (app,) = apps.values()
    assert list(apps) == ["Draw a picture (app)"]
    types = {node["id"]: node["type"] for node in app["nodes"]}
    shown = app["extra"]["linearData"]
    assert [(types[number], widget) for number, widget in shown["inputs"]] == [
        ("SJDSampler", "prompt"), ("SJDSampler", "seed"), ("SJDSampler", "batch_size"), ("SJDDecoder", "preset"),
    ]  # fmt: skip
    assert [types[number] for number in shown["outputs"]] == ["SaveImage"]


def test_thumbnails_differ():
    colours = []
    for path in WORKFLOWS:
        with Image.open(path.with_suffix(".jpg")) as picture:
            colours.append(picture.convert("RGB").resize((4, 4)).tobytes())
    distances = [max(abs(a - b) for a, b in zip(one, other)) for i, one in enumerate(colours) for other in colours[:i]]
    assert min(distances) > 40


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
