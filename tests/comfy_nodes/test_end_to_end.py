"""The pack in a real ComfyUI comfyui. Runs where COMFYUI_PATH names a ComfyUI checkout.

COMFYUI_PYTHON names the Python to start it with, if it is not the one that runs the tests.
"""

import io
import json
import re
import statistics
import time
from itertools import pairwise

import pytest
from PIL import Image

from .comfyui import CHECKOUT, ENDS, ROOT, is_over
from .graphs import to_prompt
from .test_interface import FROZEN

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
TOKENS = 16 * 16

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.skipif(CHECKOUT is None, reason="COMFYUI_PATH names no ComfyUI checkout"),
]


def graph(model, seed=0, **values):
    """Loader, sampler, decoder and preview of one picture."""
    sampling = {
        "model": ["1", 0], "prompt": "a red dog", "seed": seed, "width": 0, "height": 0, "batch_size": 1,
        "guidance": -1.0, "temperature": -1.0, "top_k": -1, "top_p": -1.0, "preview_seconds": 1, "decoder": ["2", 0],
    }  # fmt: skip
    return {
        "1": {"class_type": "SJDModelLoader", "inputs": {"model": model, "dtype": "fp32"}},
        "2": {"class_type": "SJDDecoderSequential", "inputs": {}},
        "3": {"class_type": "SJDSampler", "inputs": sampling | values},
        "4": {"class_type": "SJDDecodeTokens", "inputs": {"model": ["1", 0], "tokens": ["3", 0]}},
        "5": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
    }


def pixels(pictures):
    opened = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    return [(picture.size, picture.tobytes()) for picture in opened]


def forget_everything(comfyui):
    """Unload models and empty the cache; takes effect between runs.

    One flag means both. Sent as two, the second one may wait for the next run.
    """
    comfyui.post("/free", {"free_memory": True})
    end = time.monotonic() + 60
    while (state := comfyui.get("/probe"))["SJDWeights"] and time.monotonic() < end:
        pass
    return state


def test_every_node_is_registered(comfyui):
    object_info = comfyui.get("/object_info")
    assert {name for name in object_info if name.startswith("SJD")} == set(FROZEN)
    assert "IMPORT FAILED" not in comfyui.log.read_text()
    for node_id, (names, _) in FROZEN.items():
        order = object_info[node_id]["input_order"]
        assert order.get("required", []) + order.get("optional", []) == names
        assert all(object_info[node_id]["output_tooltips"])
    assert set(object_info["SJDModelLoader"]["input"]["required"]["model"][1]["options"]) >= {"watched", "quick"}


def test_pages_and_templates_are_served(comfyui):
    name = "sjd_pipelines"
    assert set(comfyui.get("/workflow_templates")[name]) == {path.stem for path in WORKFLOWS}
    for path in WORKFLOWS:
        assert comfyui.get(f"/api/workflow_templates/{name}/{path.stem}.json")
        assert comfyui.get(f"/api/workflow_templates/{name}/{path.stem}.jpg")
    assert comfyui.get(f"/extensions/{name}/docs/SJDSampler.md").startswith(b"# SJD Sampler")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run(comfyui, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    _, outputs = comfyui.run(to_prompt(workflow, comfyui.get("/object_info")))
    pictures = pixels(comfyui.pictures(outputs))
    assert pictures
    for (width, height), content in pictures:
        assert width >= 128
        assert height >= 128
        assert len(set(content)) > 16


def test_progress_and_previews(comfyui):
    events, _ = comfyui.run(graph("watched", seed=1))
    progress = [event["data"] for event in events if event["type"] == "progress" and event["data"]["node"] == "3"]
    values = [one["value"] for one in progress]
    assert {one["max"] for one in progress} == {TOKENS}
    assert values == sorted(values)
    assert values[-1] > 0.98 * TOKENS
    previews = [event for event in events if event["type"] == "binary" and b"\xff\xd8\xff" in event["body"]]
    assert previews
    heard = [event["heard"] for event in previews]
    assert all(later - earlier > 0.9 for earlier, later in pairwise(heard))
    body = previews[0]["body"]
    with Image.open(io.BytesIO(body[body.index(b"\xff\xd8\xff") :])) as picture:
        picture = picture.convert("RGB")
    low = [picture.getpixel((column, picture.height - 2)) for column in range(picture.width)]
    assert all(abs(channel - 128) < 8 for pixel in low for channel in pixel)


def test_cancel_takes_a_pass_and_the_next_run_is_right(comfyui):
    _, outputs = comfyui.run(graph("watched", seed=2, temperature=0.9))
    expected = pixels(comfyui.pictures(outputs))
    prompt_id = comfyui.queue(graph("watched", seed=3))
    heard = []
    for event in comfyui.follow():
        if event["type"] == "progress" and event["data"]["prompt_id"] == prompt_id and event["data"]["node"] == "3":
            heard.append(event["heard"])
        if len(heard) == 40:
            break
    clicked = time.monotonic()
    comfyui.post("/interrupt", {})
    end = comfyui.wait(prompt_id)[-1]
    assert end["type"] == "execution_interrupted"
    passes = [later - earlier for earlier, later in pairwise(heard)]
    latency = end["heard"] - clicked
    print(f"cancelled after {latency:.3f} s; a pass takes {statistics.median(passes):.3f} s")
    assert latency < 2 * max(passes) + 0.25
    forget_everything(comfyui)
    _, outputs = comfyui.run(graph("watched", seed=2, temperature=0.9))
    assert pixels(comfyui.pictures(outputs)) == expected


def test_the_second_run_is_cached_and_a_repeated_one_equal(comfyui):
    _, first = comfyui.run(graph("quick", seed=4))
    events, second = comfyui.run(graph("quick", seed=4))
    cached = next(event["data"]["nodes"] for event in events if event["type"] == "execution_cached")
    assert set(cached) == {"1", "2", "3", "4", "5"}
    expected = pixels(comfyui.pictures(first))
    assert pixels(comfyui.pictures(second)) == expected
    forget_everything(comfyui)
    events, third = comfyui.run(graph("quick", seed=4))
    assert not next(event["data"]["nodes"] for event in events if event["type"] == "execution_cached")
    assert pixels(comfyui.pictures(third)) == expected


def test_free_frees(comfyui):
    comfyui.run(graph("watched", seed=5, temperature=0.0))
    state = comfyui.get("/probe")
    assert state["loaded"] == ["SJDWeights"] * len(state["loaded"]) != []
    assert state["CanvasCache"] == 0
    after = forget_everything(comfyui)
    assert after["loaded"] == []
    assert after["SJDWeights"] == 0


def test_a_second_model_can_take_the_place_of_the_first(comfyui):
    def both(seed):
        nodes = graph("watched", seed=seed, temperature=0.0)
        for key, node in graph("quick", seed=seed).items():
            links = {
                name: [f"1{value[0]}", value[1]] for name, value in node["inputs"].items() if isinstance(value, list)
            }
            nodes[f"1{key}"] = {"class_type": node["class_type"], "inputs": node["inputs"] | links}
        return nodes

    _, outputs = comfyui.run(both(5))
    expected = pixels(comfyui.pictures(outputs))
    assert comfyui.get("/probe")["loaded"] == ["SJDWeights"] * 2
    comfyui.get("/probe/evict")
    assert comfyui.get("/probe")["loaded"] == ["SJDWeights"]
    comfyui.run(both(6))
    assert comfyui.get("/probe")["loaded"] == ["SJDWeights"] * 2
    forget_everything(comfyui)
    _, outputs = comfyui.run(both(5))
    assert pixels(comfyui.pictures(outputs)) == expected


@pytest.mark.parametrize(
    ("node", "name", "value", "message"),
    [
        ("3", "batch_size", 0, "smaller than min"),
        ("3", "top_p", 1.5, "bigger than max"),
        ("1", "model", "gone", "There is no model 'gone'.*models/sjd.*hf download"),
        ("1", "dtype", "int3", "dtype must be auto, bf16"),
    ],
)
def test_bad_values_are_refused_before_anything_runs(comfyui, node, name, value, message):
    prompt = graph("quick")
    prompt[node]["inputs"][name] = value
    status, answer = comfyui.post("/prompt", {"prompt": prompt})
    assert status == 400
    errors = answer["node_errors"][node]["errors"]
    assert re.search(message, " ".join(f"{error['message']} {error['details']}" for error in errors))


def test_a_size_the_model_cannot_draw_is_told_on_the_sampler(comfyui):
    prompt_id = comfyui.queue(graph("quick", width=24))
    end = comfyui.wait(prompt_id)[-1]
    assert end["type"] == "execution_error"
    assert end["data"]["node_id"] == "3"
    assert "draws 16x16 pixels only, got Nonex24" in end["data"]["exception_message"]


def test_twenty_queued_runs_with_three_cancels(comfyui):
    comfyui.run(graph("watched", seed=99))
    alone = {}
    for seed in (100, 110, 119):
        _, outputs = comfyui.run(graph("watched", seed=seed, temperature=0.5))
        alone[seed] = pixels(comfyui.pictures(outputs))
    forget_everything(comfyui)
    comfyui.run(graph("watched", seed=99))
    before = comfyui.get("/probe")

    seeds = range(100, 120)
    ids = {comfyui.queue(graph("watched", seed=seed, temperature=0.5)): seed for seed in seeds}
    to_cancel = {103, 108, 115}
    ends = {}
    for event in comfyui.follow(1800):
        seed = ids.get(event.get("data", {}).get("prompt_id"))
        if event["type"] == "progress" and event["data"]["node"] == "3" and event["data"]["value"] > 20:
            if seed in to_cancel:
                to_cancel.remove(seed)
                comfyui.post("/interrupt", {})
        elif seed is not None and event["type"] in ENDS:
            ends[seed] = event["type"]
        if len(ends) == len(seeds) and is_over(event, list(ids)[-1]):
            break
    cancelled = {103, 108, 115}
    assert {seed for seed, end in ends.items() if end == "execution_interrupted"} == cancelled
    assert {seed for seed, end in ends.items() if end == "execution_success"} == set(seeds) - cancelled

    by_seed = {seed: prompt_id for prompt_id, seed in ids.items()}
    for seed, expected in alone.items():
        outputs = comfyui.get(f"/history/{by_seed[seed]}")[by_seed[seed]]["outputs"]
        assert pixels(comfyui.pictures(outputs)) == expected
    after = comfyui.get("/probe")
    print(f"resident {before['resident'] / 2**20:.0f} MiB before, {after['resident'] / 2**20:.0f} MiB after")
    assert after["CanvasCache"] == 0
    assert after["SJDWeights"] == before["SJDWeights"] == 1
    assert after["resident"] - before["resident"] < 64 * 2**20
