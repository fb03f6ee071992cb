"""Which models the loaders list and how they refuse: nothing that lies in a model folder takes a node away."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sjd_pipelines.bundled import BUNDLED

ROOT = Path(__file__).parents[2]
OWN = [
    "bundled emoji model (128 x 128)",
    *(name for name, model in BUNDLED.items() if model.pipeline != "TarFlowPipeline" and name != "emoji-janus"),
]
TO_DOWNLOAD = [
    "Janus-Pro-1B (to download: 4.2 GB)",
    "Janus-Pro-7B (to download: 14.8 GB)",
    "Emu3-Gen-hf (to download: 17.5 GB)",
    "Anole-7b-v0.1-hf (to download: 14.1 GB)",
    "Lumina-mGPT-7B-768 (to download: 14.2 GB)",
]


def refusal(loader, choice):
    """What a loader says of a choice that it refuses."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        loader.validate_inputs(choice)
    return str(caught.value)


def options_of(node):
    return node.define_schema().inputs[0].options


@pytest.fixture
def toy_folder(server):
    return Path(server.folders["sjd"][0], "toy")


@pytest.fixture
def place(server):
    """Makes a folder among the models, of files by name, and takes it away afterwards."""
    made = []

    def make(kind, name, files):
        folder = Path(server.folders[kind][0], name)
        made.append(folder)
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    yield make
    for folder in made:
        shutil.rmtree(folder)


def test_models_are_found_below_the_model_folders(nodes, server):
    assert options_of(nodes["SJDModelLoader"]) == [*OWN, "toy", "someone/small", *TO_DOWNLOAD]
    assert options_of(nodes["SJDFlowLoader"]) == ["emoji-flow", "toy-flow"]


def test_a_bundled_model_by_its_name_comes_before_a_folder(nodes, place, toy_folder):
    loader = nodes["SJDModelLoader"]
    assert loader.validate_inputs("emoji-janus") is True
    assert loader.fingerprint_inputs("emoji-janus", "auto") == "emoji-janus auto []"
    assert "no model './emoji-janus'" in refusal(loader, "./emoji-janus")
    shutil.copytree(toy_folder, place("sjd", "emoji-janus", {}), dirs_exist_ok=True)
    assert options_of(loader)[: len(OWN) + 1] == [*OWN, "./emoji-janus"]
    assert loader.fingerprint_inputs("emoji-janus", "auto") == "emoji-janus auto []"
    assert "model_index.json" in loader.fingerprint_inputs("./emoji-janus", "auto")


def test_a_folder_of_extra_model_paths_counts(nodes, server, tmp_path, toy_folder):
    shutil.copytree(toy_folder, tmp_path / "elsewhere")
    server.folders["sjd"].append(str(tmp_path))
    try:
        loader = nodes["SJDModelLoader"]
        assert "elsewhere" in options_of(loader)
        before = loader.fingerprint_inputs("elsewhere", "auto")
        (tmp_path / "elsewhere" / "note.txt").write_bytes(b"new")
        assert loader.fingerprint_inputs("elsewhere", "auto") != before
    finally:
        server.folders["sjd"].pop()


def test_an_adapter_is_a_model(nodes, server, run):
    """It is listed in both folders, and another model if its base is."""
    toy, loader = Path(server.folders["sjd"][0], "toy"), nodes["SJDModelLoader"]
    places = {"quick": Path(server.folders["sjd"][0], "quick"), "slow": Path(server.folders["diffusers"][0], "slow")}
    head = "base_model.model.model.generation_head.vision_head"
    factors = {f"{head}.lora_A.weight": torch.ones(1, 32), f"{head}.lora_B.weight": torch.ones(64, 1)}
    try:
        for folder in places.values():
            folder.mkdir()
            save_file(factors, folder / "adapter_model.safetensors")
            config = {"peft_type": "LORA", "base_model_name_or_path": str(toy), "lora_alpha": 1}
            (folder / "adapter_config.json").write_text(json.dumps(config))
        assert places.keys() <= set(options_of(loader))
        for name in places:
            (model,) = run("SJDModelLoader", model=name)
            assert model.token_bytes > 0
            before = loader.fingerprint_inputs(name, "auto")
            (toy / "note.json").write_text("{}")
            assert loader.fingerprint_inputs(name, "auto") != before
            (toy / "note.json").unlink()
    finally:
        for folder in places.values():
            shutil.rmtree(folder)


def test_a_missing_model_names_the_folders_and_the_command(nodes, run):
    loader = nodes["SJDModelLoader"]
    message = refusal(loader, "gone")
    assert "There is no model 'gone'." in message
    assert "hf download deepseek-community/Janus-Pro-1B --local-dir" in message
    made = f'in "{ROOT}" with: {sys.executable} sjd_pipelines/cli convert FILE.pth FOLDER, and press R.'
    assert refusal(nodes["SJDFlowLoader"], "gone").endswith(made)
    assert loader.validate_inputs("toy") is True
    assert loader.validate_inputs(None) is True
    with pytest.raises(ValueError, match=r"^dtype must be auto, bf16, fp16, fp32; got 'int3'\.$"):
        run("SJDModelLoader", model="toy", dtype="int3")


@pytest.mark.parametrize("choice", [TO_DOWNLOAD[0], "Janus-Pro-1B", "someone/Janus-Pro-1B"])
@pytest.mark.parametrize("known", [True, False], ids=["hf", "no hf on the path"])
def test_a_model_to_download_says_what_to_type(nodes, server, choice, known, tmp_path, monkeypatch):
    hf = tmp_path / ("hf.bat" if os.name == "nt" else "hf")
    hf.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path if known else tmp_path / "none"))
    program = "hf" if known else f"{sys.executable} -m huggingface_hub.cli.hf"
    assert refusal(nodes["SJDModelLoader"], choice) == (
        f"Janus-Pro-1B is not here yet. Type: {program} download deepseek-community/Janus-Pro-1B --local-dir "
        f'"{Path(server.folders["sjd"][0], "Janus-Pro-1B")}" (about 4.2 GB; drawing takes about 5 GB of memory as '
        "bf16). Then press R and choose it."
    )


ODD = {
    "a class of another package": {"model_index.json": '{"_class_name": ["pipeline_mine", "MinePipeline"]}'},
    "a list": {"config.json": "[1, 2]"},
    "no JSON": {"model_index.json": "{"},
    "nothing": {"config.json": ""},
    "a number as model_type": {"config.json": '{"model_type": 7}'},
    "an unhashable model_type": {"config.json": '{"model_type": {"a": []}}'},
    "deep nesting": {"config.json": "[" * 100_000},
    "no text": {"config.json": b"\xff\xfe\x00"},
    "odd parts": {"model_index.json": '{"_class_name": "SJDJanusPipeline", "model": [["a"], {}]}'},
    "an adapter on nothing": {"adapter_config.json": '{"base_model_name_or_path": null}'},
    "an adapter on a number": {"adapter_config.json": '{"peft_type": "LORA", "base_model_name_or_path": 3}'},
}


@pytest.mark.parametrize("files", ODD.values(), ids=ODD)
def test_odd_folders_take_no_node_away(nodes, place, files):
    place("diffusers", "odd", files)
    place("sjd", "odd", files)
    loader = nodes["SJDModelLoader"]
    (listed,) = [one for one in options_of(loader) if one.startswith("odd")]
    assert listed.startswith("odd (can't be loaded: ")
    assert refusal(loader, listed) == refusal(loader, "odd")
    assert options_of(nodes["SJDFlowLoader"]) == ["emoji-flow", "toy-flow"]


def test_what_is_no_file_takes_no_node_away(nodes, place, toy_folder):
    folder = place("sjd", "odd", {})
    shutil.copytree(toy_folder, folder, dirs_exist_ok=True)
    os.mkfifo(folder / "pipe.safetensors")
    os.mkfifo(folder / "pipe.safetensors.index.json")
    (folder / "folder.safetensors").mkdir()
    (folder / "loop.safetensors").symlink_to("loop.safetensors")
    assert "odd" in options_of(nodes["SJDModelLoader"])
    piped = place("sjd", "piped\n\udcff", {})
    os.mkfifo(piped / "config.json")
    (place("sjd", "folder", {}) / "config.json").mkdir()
    assert not {"folder", "piped\n\udcff"} & set(options_of(nodes["SJDModelLoader"]))


def test_foreign_folders_of_all_packs_are_not_listed(nodes, place):
    for number, files in enumerate(ODD.values()):
        place("diffusers", f"foreign-{number}", files)
    assert not any("foreign" in one for one in options_of(nodes["SJDModelLoader"]))


def test_a_model_without_some_of_its_weights_is_listed_with_the_reason(nodes, place, toy_folder):
    folder = place("diffusers", "half", {})
    shutil.copytree(toy_folder, folder, dirs_exist_ok=True)
    loader = nodes["SJDModelLoader"]
    assert "half" in options_of(loader)
    weights = folder / "model" / "model.safetensors"
    weights.rename(weights.with_name("model-00001-of-00002.safetensors"))
    names = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model" / "model.safetensors.index.json").write_text(json.dumps(names))
    lacks = "lacks model-00002-of-00002.safetensors, which model.safetensors.index.json names; download it again."
    assert refusal(loader, "half") == f"{folder / 'model'} {lacks}"
    (folder / "model" / "model-00002-of-00002.safetensors").write_bytes(b"cut off")
    assert "is not a complete safetensors file" in refusal(loader, "half")
    assert "half (can't be loaded: " in " ".join(options_of(loader))
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    assert refusal(loader, "half").endswith("names; download it again.")
    (folder / "model" / "model.safetensors.index.json").unlink()
    assert refusal(loader, "half") == f"{folder} has no .safetensors weights; download it again."
