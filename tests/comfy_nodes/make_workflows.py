"""Writes workflows/*.json from the nodes of a running ComfyUI, and thumbnails of what they draw there.

`python tests/comfy_nodes/make_workflows.py http://127.0.0.1:8188`
"""

import io
import json
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from graphs import App, Node, to_page, to_prompt
from PIL import Image

from sjd_pipelines.pipelines.sheets import contact_sheet

FOLDER = Path(__file__).parents[2] / "workflows"
SEED = 7
IMAGE_HEIGHT = 300
SAMPLER_HEIGHT = 860  # the picture forms below its inputs
WORDS_HEIGHT = 460  # what a node writes on itself
THUMBNAIL = 400  # pixels


def sampler(
    column: int, decoder: str = "decoder", title: str | None = None, shared: bool = True, **values: Any
) -> Node:
    """A sampler, whose prompt and seed are typed once for all of its graph if they are `shared`."""
    links = {"model": ("model", 0), "decoder": (decoder, 0)}
    if shared:
        links |= {"prompt": ("prompt", 0), "seed": ("seed", 0)}
        values["prompt"] = ""
    return Node("SJDSampler", column, values, links, title, SAMPLER_HEIGHT)


def preset(name: str, column: int = 0) -> Node:
    return Node("SJDDecoder", column, {"preset": name})


def decoded(column: int, source: str = "sampler") -> Node:
    return Node("SJDDecodeTokens", column, {}, {"model": ("model", 0), "tokens": (source, 0)})


def shared(prompt: str) -> dict[str, Node]:
    """Where prompt and seed are typed."""
    return {
        "prompt": Node("PrimitiveStringMultiline", 0, {"value": prompt}, title="Prompt", height=130),
        "seed": Node("PrimitiveInt", 0, {"value": SEED}, title="Seed"),
    }


def text_to_image(prompt: str) -> dict[str, Node]:
    return {
        "model": Node("SJDModelLoader", 0),
        "decoder": preset("same picture, fast"),
        "sampler": sampler(1, shared=False, prompt=prompt, seed=SEED),
        "decode": decoded(2),
        "report": Node("SJDReport", 2, {}, {"report": ("sampler", 1)}, height=WORDS_HEIGHT),
        "save": Node("SaveImage", 3, {"filename_prefix": "sjd"}, {"images": ("decode", 0)}, height=IMAGE_HEIGHT),
    }


COMPARE = {
    "model": Node("SJDModelLoader", 0),
    **shared("three penguins on a pink background"),
    "fast": preset("same picture, fewest passes"),
    "slow": preset("sequential, one token at a time"),
    "sampler a": sampler(1, "fast", "A: fewest passes"),
    "sampler b": sampler(2, "slow", "B: sequential"),
    "decode a": decoded(3, "sampler a"),
    "decode b": decoded(3, "sampler b"),
    "compare": Node(
        "SJDCompare",
        3,
        {},
        {
            "report_a": ("sampler a", 1),
            "report_b": ("sampler b", 1),
            "tokens_a": ("sampler a", 0),
            "tokens_b": ("sampler b", 0),
        },
        height=WORDS_HEIGHT,
    ),
    "image a": Node("PreviewImage", 4, {}, {"images": ("decode a", 0)}, "A", IMAGE_HEIGHT),
    "image b": Node("PreviewImage", 4, {}, {"images": ("decode b", 0)}, "B", IMAGE_HEIGHT),
}

ACCEPTANCE_MAP = {
    "model": Node("SJDModelLoader", 0),
    "decoder": preset("same picture, fast"),
    "sampler": sampler(1, shared=False, prompt="a butterfly on a yellow background", seed=SEED),
    "decode": decoded(2),
    "step": Node("SJDAcceptanceMap", 2, {"metric": "step"}, {"report": ("sampler", 1), "image": ("decode", 0)}),
    "together": Node(
        "SJDAcceptanceMap", 2, {"metric": "together"}, {"report": ("sampler", 1), "image": ("decode", 0)}
    ),
    "image": Node("PreviewImage", 3, {}, {"images": ("decode", 0)}, height=IMAGE_HEIGHT),
    "step image": Node("PreviewImage", 4, {}, {"images": ("step", 0)}, "When each part was finished", IMAGE_HEIGHT),
    "together image": Node(
        "PreviewImage", 4, {}, {"images": ("together", 0)}, "How much was finished at once", IMAGE_HEIGHT
    ),
}

FOUR = (
    "sequential, one token at a time",
    "another picture, just as good",
    "same picture, fast",
    "same picture, fewest passes",
)
FOUR_DECODERS = {
    "model": Node("SJDModelLoader", 0),
    **shared("an owl above a rocket on a purple background"),
    **{name: preset(name) for name in FOUR},
    **{f"sampler {name}": sampler(number, name, name) for number, name in enumerate(FOUR, 1)},
    **{f"decode {name}": decoded(5, f"sampler {name}") for name in FOUR},
    "sheet": Node(
        "SJDPictureComparison",
        5,
        {},
        {f"image_{number}": (f"decode {name}", 0) for number, name in enumerate(FOUR, 1)}
        | {f"report_{number}": (f"sampler {name}", 1) for number, name in enumerate(FOUR, 1)},
    ),
    "save": Node("SaveImage", 6, {"filename_prefix": "sjd"}, {"images": ("sheet", 0)}, height=620),
}

PARALLEL_GROUPS = {
    "model": Node("SJDModelLoader", 0, {"model": "emoji-par"}),
    "decoder": Node("SJDDecoderParallelGroups", 0),
    "sampler": sampler(1, shared=False, prompt="rocket", seed=SEED),
    "decode": decoded(2),
    "map": Node("SJDAcceptanceMap", 2, {"metric": "step"}, {"report": ("sampler", 1), "image": ("decode", 0)}),
    "report": Node("SJDReport", 2, {}, {"report": ("sampler", 1)}, height=WORDS_HEIGHT),
    "image": Node("PreviewImage", 3, {}, {"images": ("decode", 0)}, height=IMAGE_HEIGHT),
    "map image": Node("PreviewImage", 3, {}, {"images": ("map", 0)}, "When each part was finished", IMAGE_HEIGHT),
}

FLOW = {
    "flow": Node("SJDFlowLoader", 0),
    "solver": Node("SJDSolverFrontier", 0),
    "sampler": Node(
        "SJDFlowSampler",
        1,
        {"class_name": "penguin", "seed": SEED, "batch_size": 4},
        {"flow": ("flow", 0), "solver": ("solver", 0)},
        height=WORDS_HEIGHT,
    ),
    "decode": Node("SJDFlowDecode", 2, {}, {"flow": ("flow", 0), "patches": ("sampler", 0)}),
    "save": Node("SaveImage", 3, {"filename_prefix": "sjd"}, {"images": ("decode", 0)}, height=IMAGE_HEIGHT),
}

# Title, under which ComfyUI offers it -> nodes, note, what App Mode shows.
WORKFLOWS: dict[str, tuple[dict[str, Node], str, App | None]] = {
    "Draw a picture": (
        text_to_image("a dog left of a car on a green background"),
        "**Draw a picture.** Write a prompt and run; every run draws another one. SJD Decoder draws the same picture "
        "as the plain way, one token at a time, in fewer passes; the report says how many. For a bigger model "
        "choose one in SJD Load Model: it says how to get it.",
        None,
    ),
    "Draw a picture (app)": (
        text_to_image("two strawberries on a white background"),
        "**An app.** Prompt, number and decoder beside the pictures. Leave App Mode to see the graph.",
        App([("sampler", "prompt"), ("sampler", "seed"), ("sampler", "batch_size"), ("decoder", "preset")], ["save"]),
    ),
    "Same picture, fewer passes": (
        COMPARE,
        "**Faster, and the same picture?** The same prompt and seed twice, with the fewest passes and one token by "
        "token. SJD Compare counts passes, seconds and differing tokens. Choose another preset for A to try it.",
        None,
    ),
    "Where passes are saved": (
        ACCEPTANCE_MAP,
        "**Where are passes saved?** The map paints over the picture when each part was finished. Plain backgrounds "
        "are guessed in large steps; edges take one pass after another.",
        None,
    ),
    "Four decoders, one prompt": (
        FOUR_DECODERS,
        "**Four decoders, one prompt.** Passes and seconds stand below each picture. Three are the same picture; the "
        "one that says so is another, just as good.",
        None,
    ),
    "Several tokens at once": (
        PARALLEL_GROUPS,
        "**Several tokens at once.** This model was trained to make one token of every region of the picture in each "
        "pass (PAR). Write the name of an object and run. The map paints when each part was finished: the regions "
        "fill side by side, the dark one first, bright ones last.",
        None,
    ),
    "A flow draws a class": (
        FLOW,
        "**A flow.** Write the name of a class and run. Frontier solves the flow in a tenth of the passes that one "
        "patch after the other takes; raise its tolerance for fewer still. SJD Calibrate Solver, in the place of the "
        "solver, finds what is cheapest on your device.",
        None,
    ),
}


def main(server: str) -> None:
    object_info = ask(f"{server}/object_info")
    for name, (nodes, note, app) in WORKFLOWS.items():
        workflow = to_page(nodes, note, object_info, app)
        text = json.dumps(workflow, indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        pictures = draw(server, to_prompt(workflow, object_info))
        sheet = contact_sheet(pictures, columns=2 if len(pictures) == 4 else 3)
        sheet = sheet.resize([side * THUMBNAIL // max(sheet.size) for side in sheet.size], Image.Resampling.LANCZOS)
        sheet.save(FOLDER / f"{name}.jpg", quality=85)


def draw(server: str, prompt: dict[str, Any]) -> list[Image.Image]:
    """Run a graph; its pictures in the order of the nodes that show them."""
    prompt_id = ask(f"{server}/prompt", {"prompt": prompt})["prompt_id"]
    while prompt_id not in (history := ask(f"{server}/history/{prompt_id}")):
        time.sleep(1)
    outputs = history[prompt_id]["outputs"]
    files = [file for node in sorted(outputs, key=int) for file in outputs[node].get("images", [])]
    pictures = []
    for file in files:
        with urllib.request.urlopen(f"{server}/view?{urllib.parse.urlencode(file)}") as answer:
            pictures.append(Image.open(io.BytesIO(answer.read())).convert("RGB"))
    return pictures


def ask(url: str, value: Any = None) -> Any:
    """The JSON a server answers with."""
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main(sys.argv[1])
