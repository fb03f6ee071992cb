"""The pack, imported as ComfyUI does it, from the file at the root of the checkout."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.benchmark.toy_flow import toy_flow_pipeline

from .comfyui import ComfyUI

ROOT = Path(__file__).parents[2]
PACK = "pack_under_test"


def load_file(name: str, path: Path):
    """Import a file under a name of our choice."""
    package = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=package)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


fake_comfyui = load_file("fake_comfyui", Path(__file__).with_name("fake_comfyui.py"))


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    """A stand-in for ComfyUI, with a toy model in models/sjd and in models/diffusers, and what is none."""
    models = tmp_path_factory.mktemp("comfyui") / "models"
    toy_pipeline(8, 64).save_pretrained(models / "sjd" / "toy")
    toy_flow_pipeline().save_pretrained(models / "sjd" / "toy-flow")
    toy_pipeline(4, 64, seed=1).save_pretrained(models / "diffusers" / "someone" / "small")
    for name, config in (("stable-diffusion", '{"_class_name": "StableDiffusionPipeline"}'), ("empty", None)):
        folder = models / "diffusers" / name
        folder.mkdir()
        if config:
            (folder / "model_index.json").write_text(config)
    server = fake_comfyui.Server(str(models))
    sys.modules.update(server.modules())
    yield server
    for name in server.modules():
        sys.modules.pop(name, None)


@pytest.fixture(scope="package")
def comfyui(tmp_path_factory):
    """A real ComfyUI with two toy models, and what is none."""
    base = tmp_path_factory.mktemp("comfyui")
    # Large enough to be watched and cancelled, with pixels cheap enough for previews.
    toy_pipeline(16, 256, hidden_size=128, layers=10).save_pretrained(base / "models" / "sjd" / "watched")
    toy_pipeline(8, 64).save_pretrained(base / "models" / "sjd" / "quick")
    odd = {
        "sjd/broken/config.json": "[1, 2]",
        "diffusers/theirs/model_index.json": '{"_class_name": ["mine", "Mine"]}',
    }
    for name, text in odd.items():
        (base / "models" / name).parent.mkdir(parents=True)
        (base / "models" / name).write_text(text)
    running = ComfyUI(base)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="package")
def pack(server):
    """The root module, `comfy_nodes` and all."""
    module = load_file(PACK, ROOT / "__init__.py")
    yield module
    fake_comfyui.forget(PACK)


@pytest.fixture(scope="package")
def nodes(pack):
    """Node id -> node class."""
    classes = sys.modules[f"{PACK}.comfy_nodes"].NODES
    return {node.define_schema().node_id: node for node in classes}


@pytest.fixture
def run(nodes, server):
    """Execute a node: defaults of its schema, and what is given."""
    server.updates.clear()
    server.cancel_at = None

    def execute(node_id, **values):
        node = nodes[node_id]
        inputs = [one for one in node.define_schema().inputs if not one.optional and hasattr(one, "default")]
        return node.execute(**{one.id: one.default for one in inputs} | values).args

    return execute


@pytest.fixture
def decoder(nodes, run):
    """A decoder by the registered name of its scheduler, with its defaults and what is given."""
    node_ids = {getattr(node, "scheduler", None): node_id for node_id, node in nodes.items()}

    def make(name, **values):
        return run(node_ids[name], **values)[0]

    return make


@pytest.fixture(scope="package")
def bundled(nodes):
    """The bundled model, as its loader node hands it on."""
    return nodes["SJDModelLoader"].execute("bundled emoji model (128 x 128)", "fp32").args[0]


@pytest.fixture(scope="package")
def toy_flow(nodes):
    """A random flow, as its loader node hands it on."""
    return nodes["SJDFlowLoader"].execute("toy-flow", "fp32").args[0]


@pytest.fixture(scope="package")
def toy(nodes):
    """A random model of 8 x 8 tokens, as its loader node hands it on."""
    return nodes["SJDModelLoader"].execute("toy", "fp32").args[0]
