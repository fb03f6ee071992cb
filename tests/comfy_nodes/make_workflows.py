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

from graphs import Node, to_page, to_prompt
from PIL import Image

from sjd_pipelines.pipelines.sheets import contact_sheet

FOLDER = Path(__file__).parents[2] / "workflows"
PROMPT = "a heart on a blue background"
SEED = 7
IMAGE_HEIGHT = 260
THUMBNAIL = 400  # pixels

TEXT_TO_IMAGE = {
    "model": Node("SJDModelLoader", 0),
    "decoder": Node("SJDDecoderSeededJacobi", 0),
    "sampler": Node(
        "SJDSampler", 1, {"prompt": PROMPT, "seed": SEED}, {"model": ("model", 0), "decoder": ("decoder", 0)}
    ),
    "decode": Node("SJDDecodeTokens", 2, {}, {"model": ("model", 0), "tokens": ("sampler", 0)}),
    "report": Node("SJDReport", 2, {}, {"report": ("sampler", 1)}),
    "words": Node("PreviewAny", 2, {}, {"source": ("report", 0)}, height=220),
    "save": Node("SaveImage", 3, {"filename_prefix": "sjd"}, {"images": ("decode", 0)}, height=IMAGE_HEIGHT),
}

COMPARE = {
    "model": Node("SJDModelLoader", 0),
    "fast": Node("SJDDecoderSeededJacobi", 0),
    "slow": Node("SJDDecoderSequential", 0),
    "sampler a": Node(
        "SJDSampler",
        1,
        {"prompt": PROMPT, "seed": SEED},
        {"model": ("model", 0), "decoder": ("fast", 0)},
        "A: Seeded Jacobi",
    ),
    "sampler b": Node(
        "SJDSampler",
        1,
        {"prompt": PROMPT, "seed": SEED},
        {"model": ("model", 0), "decoder": ("slow", 0)},
        "B: Sequential",
    ),
    "decode a": Node("SJDDecodeTokens", 2, {}, {"model": ("model", 0), "tokens": ("sampler a", 0)}),
    "decode b": Node("SJDDecodeTokens", 2, {}, {"model": ("model", 0), "tokens": ("sampler b", 0)}),
    "compare": Node(
        "SJDCompare",
        2,
        {},
        {
            "report_a": ("sampler a", 1),
            "report_b": ("sampler b", 1),
            "tokens_a": ("sampler a", 0),
            "tokens_b": ("sampler b", 0),
        },
    ),
    "words": Node("PreviewAny", 2, {}, {"source": ("compare", 0)}, height=260),
    "image a": Node("PreviewImage", 3, {}, {"images": ("decode a", 0)}, "A", IMAGE_HEIGHT),
    "image b": Node("PreviewImage", 3, {}, {"images": ("decode b", 0)}, "B", IMAGE_HEIGHT),
}

ACCEPTANCE_MAP = {
    "model": Node("SJDModelLoader", 0),
    "decoder": Node("SJDDecoderCoupled", 0),
    "sampler": Node(
        "SJDSampler", 1, {"prompt": PROMPT, "seed": SEED}, {"model": ("model", 0), "decoder": ("decoder", 0)}
    ),
    "decode": Node("SJDDecodeTokens", 2, {}, {"model": ("model", 0), "tokens": ("sampler", 0)}),
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

ROWS = ("SJDDecoderSequential", "SJDDecoderCoupled", "SJDDecoderLantern", "SJDDecoderZipAR")
PICTURES = 3
GRID = {
    "model": Node("SJDModelLoader", 0),
    **{row: Node(row, 0) for row in ROWS},
    **{
        f"sampler {row}": Node(
            "SJDSampler",
            1 + index % 2,
            {"prompt": PROMPT, "seed": SEED, "batch_size": PICTURES},
            {"model": ("model", 0), "decoder": (row, 0)},
            f"Row {index + 1}",
        )
        for index, row in enumerate(ROWS)
    },
    **{
        f"decode {row}": Node("SJDDecodeTokens", 3, {}, {"model": ("model", 0), "tokens": (f"sampler {row}", 0)})
        for row in ROWS
    },
    "upper": Node("ImageBatch", 3, {}, {"image1": (f"decode {ROWS[0]}", 0), "image2": (f"decode {ROWS[1]}", 0)}),
    "lower": Node("ImageBatch", 3, {}, {"image1": (f"decode {ROWS[2]}", 0), "image2": (f"decode {ROWS[3]}", 0)}),
    "all": Node("ImageBatch", 4, {}, {"image1": ("upper", 0), "image2": ("lower", 0)}),
    "grid": Node("SJDPictureGrid", 4, {"columns": PICTURES}, {"images": ("all", 0)}),
    "image": Node("PreviewImage", 4, {}, {"images": ("grid", 0)}, height=520),
}

FLOW = {
    "flow": Node("SJDFlowLoader", 0),
    "solver": Node("SJDSolverFrontier", 0),
    "sampler": Node(
        "SJDFlowSampler",
        1,
        {"class_name": "penguin", "seed": SEED, "batch_size": 4},
        {"flow": ("flow", 0), "solver": ("solver", 0)},
    ),
    "decode": Node("SJDFlowDecode", 2, {}, {"flow": ("flow", 0), "patches": ("sampler", 0)}),
    "words": Node("PreviewAny", 2, {}, {"source": ("sampler", 1)}, height=140),
    "save": Node("SaveImage", 3, {"filename_prefix": "sjd"}, {"images": ("decode", 0)}, height=IMAGE_HEIGHT),
}

WORKFLOWS = {
    "text_to_image": (
        TEXT_TO_IMAGE,
        "**Text to image.** Write a prompt and queue. Seeded Jacobi draws the same picture as the plain sequential "
        "way in fewer passes; the report says how many. For a bigger model put its folder into `models/sjd`, press R "
        "and choose it in SJD Load Model.",
    ),
    "compare_with_sequential": (
        COMPARE,
        "**Faster, and the same picture?** Two samplers draw the same prompt and seed, one with a parallel decoder, "
        "one token by token. SJD Compare counts passes, seconds and differing tokens. Connect another decoder to A "
        "to try it.",
    ),
    "acceptance_map": (
        ACCEPTANCE_MAP,
        "**Where are passes saved?** The map paints over the picture when each part was finished. Plain backgrounds "
        "are guessed in large steps; edges take one pass after another.",
    ),
    "decoder_grid": (
        GRID,
        "**Decoders side by side.** One row each, from the top: Sequential, Coupled Speculative Jacobi (lossless), "
        "LANTERN and ZipAR (both approximate). Every column has its own seed.",
    ),
    "class_to_image_with_a_flow": (
        FLOW,
        "**A flow.** Write the name of a class and queue. Frontier solves the flow in a tenth of the passes that one "
        "patch after the other takes; raise its tolerance for fewer still. SJD Calibrate Solver, in the place of the "
        "solver, finds what is cheapest on your device.",
    ),
}


def main(server: str) -> None:
    object_info = ask(f"{server}/object_info")
    for name, (nodes, note) in WORKFLOWS.items():
        workflow = to_page(nodes, note, object_info)
        text = json.dumps(workflow, indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        pictures = draw(server, to_prompt(workflow, object_info))
        sheet = contact_sheet(pictures, columns=3)
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
