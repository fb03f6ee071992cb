"""The pack in a real ComfyUI comfyui. Runs where COMFYUI_PATH names a ComfyUI checkout.

COMFYUI_PYTHON names the Python to start it with, if it is not the one that runs the tests.
"""

import io
import json
import re
import statistics
import time
from itertools import pairwise
from urllib.parse import quote

import pytest
from PIL import Image, ImageChops, ImageStat

from sjd_pipelines import draw_again

from .comfyui import CHECKOUT, ENDS, ROOT, is_over
from .graphs import to_prompt
from .test_interface import FROZEN

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
TOKENS = 16 * 16
JPEG = b"\xff\xd8\xff"

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


def opened(event):
    """The picture in a message of the server."""
    return Image.open(io.BytesIO(event["body"][event["body"].index(JPEG) :]))


def progress_end(events):
    """When the sampler had its last token."""
    return max(event["heard"] for event in events if event["type"] == "progress" and event["data"]["node"] == "3")


def forget_everything(comfyui):
    """Unload models and empty the cache; takes effect between runs.

    One flag means both. Sent as two, the second one may wait for the next run; so may one that is sent while the
    server tidies up after a run, and it is sent again.
    """
    end = time.monotonic() + 60
    while (state := comfyui.get("/probe"))["SJDWeights"] and time.monotonic() < end:
        comfyui.post("/free", {"free_memory": True})
        soon = time.monotonic() + 10
        while comfyui.get("/probe")["SJDWeights"] and time.monotonic() < soon:
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
    models = object_info["SJDModelLoader"]["input"]["required"]["model"][1]["options"]
    assert {"watched", "quick"} < set(models)
    assert any(re.fullmatch(r"broken \(can't be loaded: .*config.json holds .*\)", one) for one in models)
    assert not any("theirs" in one for one in models)
    assert object_info["SJDDecoderLantern"]["experimental"]
    if "search_aliases" in object_info["SJDModelLoader"]:  # a newer ComfyUI
        assert "autoregressive" in object_info["SJDModelLoader"]["search_aliases"]
        assert object_info["SJDSampler"]["input"]["required"]["top_k"][1]["advanced"]


def test_pages_and_templates_are_served(comfyui):
    name = "sjd_pipelines"
    assert set(comfyui.get("/workflow_templates")[name]) == {path.stem for path in WORKFLOWS}
    for path in WORKFLOWS:
        assert comfyui.get(f"/api/workflow_templates/{name}/{quote(path.stem)}.json")
        assert comfyui.get(f"/api/workflow_templates/{name}/{quote(path.stem)}.jpg")
    assert comfyui.get(f"/extensions/{name}/docs/SJDSampler.md").startswith(b"# SJD Sampler")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run(comfyui, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    _, outputs = comfyui.run(to_prompt(workflow, comfyui.get("/object_info")))
    pictures = pixels(comfyui.pictures(outputs))
    assert pictures
    for (width, height), content in pictures:
        assert min(width, height) >= (32 if "flow" in path.stem else 128)
        assert len(set(content)) > 16


def test_progress_and_previews(comfyui):
    events, outputs = comfyui.run(graph("watched", seed=1))
    (finished,) = [Image.open(io.BytesIO(one)).convert("RGB") for one in comfyui.pictures(outputs)]
    progress = [event["data"] for event in events if event["type"] == "progress" and event["data"]["node"] == "3"]
    values = [one["value"] for one in progress]
    assert {one["max"] for one in progress} == {TOKENS}
    assert values == sorted(values)
    assert values[-1] > 0.98 * TOKENS
    previews = [event for event in events if event["type"] == "binary" and JPEG in event["body"]]
    sketches = [event for event in previews if event["heard"] < progress_end(events)]
    drawing = progress_end(events) - next(event["heard"] for event in events if event["type"] == "progress")
    print(f"{len(sketches)} sketches in {drawing:.1f} s")
    assert len(sketches) >= 10 / 8 * drawing - 1
    with opened(sketches[0]) as picture:
        picture = picture.convert("RGB")
    low = [picture.getpixel((column, picture.height - 2)) for column in range(picture.width)]
    assert all(abs(channel - 128) < 8 for pixel in low for channel in pixel)
    with opened(previews[-1]) as picture:  # the finished picture, made larger
        shown = picture.convert("RGB").resize(finished.size, Image.Resampling.BOX)
    assert ImageStat.Stat(ImageChops.difference(shown, finished)).mean < [24] * 3
    texts = [event["body"].decode("utf-8", "ignore") for event in events if event["type"] == "binary"]
    assert any(re.search(rf"\d+/{TOKENS} tokens, 1\.0 per pass", text) for text in texts)
    assert any(re.search(rf"{TOKENS} tokens in {TOKENS} passes, 1\.0 per pass", text) for text in texts)


def test_cancel_takes_a_pass_and_the_next_run_is_right(comfyui):
    _, outputs = comfyui.run(graph("watched", seed=2, temperature=0.9))
    expected = pixels(comfyui.pictures(outputs))
    prompt_id = comfyui.queue(graph("watched", seed=3))
    heard = []
    for event in comfyui.follow():
        if event["type"] == "progress" and event["data"]["prompt_id"] == prompt_id and event["data"]["node"] == "3":
            heard.append(event["heard"])
        assert not is_over(event, prompt_id), "too fast to be cancelled"
        if len(heard) == 10:  # a newer ComfyUI tells ten a second at most
            break
    clicked = time.monotonic()
    comfyui.post("/interrupt", {})
    end = comfyui.wait(prompt_id)[-1]
    assert end["type"] == "execution_interrupted"
    steps = [later - earlier for earlier, later in pairwise(heard)]  # a pass each, or several
    latency = end["heard"] - clicked
    print(f"cancelled after {latency:.3f} s; progress was told every {statistics.median(steps):.3f} s")
    assert latency < 2 * max(steps) + 0.25
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
    told = graph("quick", seed=4) | {"9": {"class_type": "SJDReport", "inputs": {"report": ["3", 1]}}}
    for _ in range(2):  # what stood on the node may be gone from the page
        events, _ = comfyui.run(told)
        texts = [event["body"] for event in events if event["type"] == "binary"]
        assert any(b"passes" in text for text in texts)
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
        ("3", "preview_seconds", 61, "bigger than max"),
        ("3", "top_p", 1.5, "top_p must be a number above 0, at most 1, got 1.5; -1 is the model's own."),
        ("3", "top_p", 0.0, "top_p must be a number above 0, at most 1, got 0.0; -1 is the model's own."),
        ("3", "prompt", " ", "The prompt is empty: say what to draw."),
        ("3", "size", "huge", "size must be one of: width and height;"),
        ("1", "model", "gone", "There is no model 'gone'.*models/sjd.*hf download"),
        ("1", "model", "Janus-Pro-1B (to download: 4.2 GB)", "Type: .*hf download deepseek-community/Janus-Pro-1B"),
        ("1", "model", "broken", "broken/config.json holds"),
    ],
)
def test_bad_values_are_refused_before_anything_runs_in_one_error(comfyui, node, name, value, message):
    prompt = graph("quick")
    prompt[node]["inputs"][name] = value
    status, answer = comfyui.post("/prompt", {"prompt": prompt})
    assert status == 400
    (error,) = answer["node_errors"][node]["errors"]
    assert re.search(message, f"{error['message']} {error['details']}")


@pytest.mark.parametrize(
    ("node", "name", "value", "message"),
    [
        ("3", "width", 24, "draws 16x16 pixels only, got 16x24"),
        ("3", "size", "wide", "This model draws no wide picture; it draws 16 x 16"),
    ],
)
def test_what_only_the_model_can_tell_is_told_on_the_sampler(comfyui, node, name, value, message):
    prompt = graph("quick")
    prompt[node]["inputs"][name] = value
    end = comfyui.wait(comfyui.queue(prompt))[-1]
    assert end["type"] == "execution_error"
    assert end["data"]["node_id"] == node
    assert message in end["data"]["exception_message"]


def test_a_preset_with_a_window_draws_the_same_picture(comfyui):
    _, outputs = comfyui.run(graph("quick", seed=8))
    expected = pixels(comfyui.pictures(outputs))
    for preset, window in (("same picture, fast", "auto"), ("same picture, fewest passes", "8")):
        prompt = graph("quick", seed=8)
        prompt["2"] = {"class_type": "SJDDecoder", "inputs": {"preset": preset, "window": window}}
        _, outputs = comfyui.run(prompt)
        assert pixels(comfyui.pictures(outputs)) == expected


def test_tokens_are_saved_and_loaded(comfyui):
    prompt = graph("quick", seed=12)
    prompt["6"] = {"class_type": "SJDSaveTokens", "inputs": {"tokens": ["3", 0], "filename_prefix": "kept/tokens"}}
    _, outputs = comfyui.run(prompt)
    expected = pixels(comfyui.pictures(outputs))
    files = comfyui.get("/object_info/SJDLoadTokens")["SJDLoadTokens"]["input"]["required"]["file"][1]["options"]
    assert files == ["kept/tokens_00001_.sjd.safetensors [output]"]
    loaded = {name: prompt[name] for name in ("1", "4", "5")}
    loaded["3"] = {"class_type": "SJDLoadTokens", "inputs": {"model": ["1", 0], "file": files[0]}}
    _, outputs = comfyui.run(loaded)
    assert pixels(comfyui.pictures(outputs)) == expected


def test_a_pictures_file_holds_the_graph_that_drew_it(comfyui, tmp_path):
    prompt = graph("bundled emoji model (128 x 128)", seed=3, batch_size=2)
    prompt["2"] = {"class_type": "SJDDecoder", "inputs": {"preset": "same picture, fast", "window": "auto"}}
    prompt["5"] = {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "again"}}
    _, outputs = comfyui.run(prompt)
    files = comfyui.pictures(outputs)
    (tmp_path / "again.png").write_bytes(files[0])
    drawn = draw_again(tmp_path / "again.png")
    assert len(drawn) == len(files) == 2
    for file, one in zip(files, drawn):
        with Image.open(io.BytesIO(file)) as saved:
            assert max(high for _, high in ImageChops.difference(saved.convert("RGB"), one.image).getextrema()) <= 1


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
