"""A picture that ComfyUI saved is drawn again by the graph in it."""

import json

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sjd_pipelines import FLOW_SOLVERS, SCHEDULERS, draw_again
from sjd_pipelines.benchmark.toy import toy_par_pipeline
from sjd_pipelines.jobs.again import read_picture
from sjd_pipelines.pipelines import graphs

from .conftest import ROOT
from .graph_run import object_info, run_graph
from .graphs import to_prompt

SAMPLER = {"model": ["1", 0], "prompt": "a red dog", "seed": 2**64 - 1, "batch_size": 2, "temperature": 0.9}


def saved(path, prompt, **chunks):
    """A PNG as ComfyUI's SaveImage writes it."""
    info = PngInfo()
    for key, value in ({"prompt": prompt} | chunks).items():
        info.add_text(key, value if isinstance(value, str) else json.dumps(value))
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def graph(sampler, loader=None, **others):
    loader = {"model": "toy", "dtype": "fp32"} | (loader or {})
    return {
        "1": {"class_type": "SJDModelLoader", "inputs": loader},
        "2": {"class_type": "SJDSampler", "inputs": SAMPLER | sampler},
        **others,
    }


def test_ids_of_nodes_are_those_of_the_nodes(nodes):
    known = {graphs.decoder_id(cls) for cls in SCHEDULERS.values()}
    known |= {graphs.solver_id(cls) for cls in FLOW_SOLVERS.values()}
    assert known <= nodes.keys()
    inputs = {one.id for one in nodes["SJDSampler"].define_schema().inputs}
    assert {*graphs.OPTIONS, "model", "prompt", "seed", "height", "width", "batch_size", "negative_prompt"} <= inputs
    flow = {one.id for one in nodes["SJDFlowSampler"].define_schema().inputs}
    assert {"flow", "class_name", "seed", "batch_size", "guidance", "solver"} <= flow
    assert {"patches", "denoise"} <= {one.id for one in nodes["SJDFlowDecode"].define_schema().inputs}


@pytest.mark.parametrize("name", ["Draw a picture", "Same picture, fewer passes"])
def test_the_workflows_of_the_pack(nodes, tmp_path, name):
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
    prompt = to_prompt(workflow, object_info(nodes))
    for node in prompt.values():
        if node["class_type"] == "SJDModelLoader":
            node["inputs"] |= {"model": "toy", "dtype": "fp32"}
    outputs = run_graph(prompt, nodes)
    loader = next(number for number, node in prompt.items() if node["class_type"] == "SJDModelLoader")
    samplers = [number for number, node in prompt.items() if node["class_type"] == "SJDSampler"]
    path = saved(tmp_path / "a.png", prompt, workflow=workflow)
    drawn = draw_again(path, outputs[loader][0].pipe)
    tokens = [ids for number in samplers for ids in outputs[number][0].ids.tolist()]
    assert [one.tokens.tolist() for one in drawn] == tokens
    with pytest.raises(ValueError, match="by a model in a folder, toy; say where it is"):
        draw_again(path)


def test_what_a_graph_says(tmp_path):
    decoder = {"class_type": "SJDDecoderSpeculative", "inputs": {"window": 8, "initialise": "uniform"}}
    inputs = {"decoder": ["3", 0], "prompt": ["4", 0], "guidance": -1, "height": 64, "negative_prompt": " fog "}
    primitive = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "a blue cat"}}
    prompt = graph(
        inputs, {"model": "bundled emoji model (128 x 128)", "dtype": "bf16"}, **{"3": decoder, "4": primitive}
    )
    remembered = read_picture(saved(tmp_path / "a.png", prompt))
    assert (remembered.model, remembered.dtype, len(remembered.rows)) == ("emoji-janus", "bfloat16", 2)
    assert [row.seed for row in remembered.rows] == graphs.picture_seeds(2**64 - 1, 2)
    row = remembered.rows[0]
    assert (row.prompt, row.negative_prompt, row.height, row.width) == ("a blue cat", "fog", 64, None)
    assert row.settings == {
        "temperature": 0.9, "scheduler": {"name": "sjd", "window": 8, "initialise": "uniform"},
    }  # fmt: skip


def test_a_preset_in_a_graph(tmp_path):
    decoder = {"class_type": "SJDDecoder", "inputs": {"preset": "same picture, fewest passes", "window": "8"}}
    prompt = graph({"decoder": ["3", 0], "size": "the model's own", "width": 8}, **{"3": decoder})
    row = read_picture(saved(tmp_path / "a.png", prompt)).rows[0]
    assert row.settings["scheduler"] == {"name": "tree-jacobi", "window": 8}
    assert (row.height, row.width) == (None, None)


@pytest.mark.parametrize(
    ("preset", "settings"), [("same picture, fast", {"window": 8}), ("another picture, just as good", {})]
)
def test_a_preset_for_a_model_that_makes_tokens_in_groups(tmp_path, preset, settings):
    decoder = {"class_type": "SJDDecoder", "inputs": {"preset": preset, "window": str(settings.get("window", "auto"))}}
    prompt = graph({"decoder": ["3", 0], "prompt": "car"}, **{"3": decoder})
    pipe = toy_par_pipeline(4)
    pipe.set_progress_bar_config(disable=True)
    drawn = draw_again(saved(tmp_path / "a.png", prompt), pipe)
    assert [one.provenance.row.settings["scheduler"] for one in drawn] == [{"name": "par", "window": 0} | settings] * 2
    seeds = [torch.Generator().manual_seed(seed) for seed in graphs.picture_seeds(SAMPLER["seed"], 2)]
    expected = pipe(["car", "car"], generator=seeds, temperature=SAMPLER["temperature"], output_type="latent").tokens
    assert torch.equal(torch.stack([one.tokens for one in drawn]), expected)


def test_a_flow_in_a_graph(tmp_path):
    prompt = {
        "1": {"class_type": "SJDFlowLoader", "inputs": {"model": "emoji-flow", "dtype": "auto"}},
        "2": {"class_type": "SJDSolverFrontier", "inputs": {"tolerance": 1e-3, "window": -1, "start": "zeros"}},
        "3": {
            "class_type": "SJDFlowSampler",
            "inputs": {"flow": ["1", 0], "class_name": "owl", "seed": 5, "batch_size": 1, "solver": ["2", 0]},
        },
        "4": {"class_type": "SJDFlowDecode", "inputs": {"flow": ["1", 0], "patches": ["3", 0], "denoise": 0.5}},
    }
    (row,) = read_picture(saved(tmp_path / "a.png", prompt)).rows
    assert (row.prompt, row.seed) == ("owl", 5)
    assert row.settings == {
        "denoise_strength": 0.5,
        "scheduler": {"name": "frontier", "tolerance": 1e-3, "window": None, "start": "zeros"},
    }


BAD = {
    "3": "the graph in it is damaged",
    "[" * 100_000: "the graph in it is damaged",
    "{}": "the graph in it has no SJDSampler or SJDFlowSampler",
    '{"1": {"class_type": "SJDSampler"}}': "the graph in it has no node",
    json.dumps(graph({"model": "toy"})): "has nothing at its input model",
    json.dumps(graph({"model": [["1"], 0]})): "has no node",
    json.dumps(graph({"prompt": ["1", 0]})): "prompt comes from 'SJDModelLoader', whose output is not in the file",
    json.dumps(graph({"prompt": 3})): "prompt is 3",
    json.dumps(graph({"seed": 2**64})): "has seed 18446744073709551616|an integer of 20 digits",
    json.dumps(graph({"batch_size": 10**9})): "batch_size 1000000000",
    json.dumps(graph({"size": "wide"})): "has size 'wide', a shape",
    json.dumps(graph({"temperature": 1e9})): "temperature must be",
    json.dumps(graph({"decoder": ["1", 0]})): "comes from 'SJDModelLoader'",
    json.dumps(graph({}, {"model": {}})): "model is {}",
}


@pytest.mark.parametrize("text", BAD, ids=[f"{index}" for index in range(len(BAD))])
def test_damaged_graphs_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match=BAD[text]):
        read_picture(saved(tmp_path / "a.png", text))


def test_the_graph_of_the_page_alone_is_not_enough(tmp_path):
    info = PngInfo()
    info.add_text("workflow", "{}")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(ValueError, match="holds the graph of ComfyUI's page alone"):
        read_picture(tmp_path / "a.png")
