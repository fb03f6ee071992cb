"""What scripts ask of loading, the same in every layout; what is refused, and what to use instead."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sjd_pipelines import SJDAutoRegressivePipeline
from sjd_pipelines.models import read_published_file, write_published_file
from sjd_pipelines.pipelines.convert import convert_model, export_published
from sjd_pipelines.pipelines.info import inspect_model

LAYOUTS = ("transformers", "diffusers")


@pytest.fixture(scope="module")
def folders(toy, tmp_path_factory):
    """A folder of the toy in either layout."""
    base = tmp_path_factory.mktemp("layouts")
    toy.model.save_pretrained(base / "transformers")
    toy.processor.save_pretrained(base / "transformers")
    toy.save_pretrained(base / "diffusers")
    return {name: base / name for name in LAYOUTS}


def load(folder, **options):
    return SJDAutoRegressivePipeline.from_pretrained(folder, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dtypes(folders, layout):
    for options in ({"torch_dtype": torch.bfloat16}, {"dtype": "bfloat16"}, {"torch_dtype": "bf16"}):
        assert load(folders[layout], **options).model.dtype == torch.bfloat16
    assert load(folders[layout], dtype="auto").model.dtype == torch.float32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_options_that_there_are_not(folders, layout):
    refused = {
        "dytpe": "SJDJanusPipeline has no option 'dytpe'; did you mean dtype.",
        "safety_checker": "SJDJanusPipeline has no option 'safety_checker'",
        "vq_model": "vq_model is an option of SJDLlamaGenPipeline",
    }
    for name, message in refused.items():
        with pytest.raises(ValueError, match=message):
            load(folders[layout], **{name: None})
    with pytest.raises(OSError, match="has no folder nowhere"):
        load(folders[layout], subfolder="nowhere")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_subfolder_is_where_the_model_is(folders, layout):
    assert load(folders[layout].parent, subfolder=layout, use_safetensors=True).model.dtype == torch.float32


def test_a_component_may_be_given(folders, toy):
    for folder in folders.values():
        assert load(folder, processor=toy.processor).processor is toy.processor


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "multi_modality"}, "the same models as deepseek-community/Janus-Pro-1B or "),
        ({"model_type": "Emu3"}, "the same models as BAAI/Emu3-Gen-hf"),
        ({"model_type": ["x"]}, r"has model_type \['x'\]; known are"),
        ({"model_type": "x" * 5000}, "known are"),
        ({}, "has model_type None; known are"),
        (
            {"model_type": "janus", "text_config": {"num_hidden_layers": 10**9}},
            "'num_hidden_layers': 1000000000, which",
        ),
        ({"model_type": "janus", "vq_config": {"embed_dim": 10**30}}, "an integer of 31 digits, which is more than"),
        ({"model_type": "janus", "text_config": 3}, "can't be loaded|janus"),
        ({"model_type": "janus", "vq_config": {"channel_multiplier": "wide"}}, "can't be loaded|channel_multiplier"),
        ({"model_type": "chameleon", "vocabulary_map": [1]}, "can't be loaded|does not say"),
    ],
)
def test_configurations_of_unknown_origin(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    for tell in (inspect_model, load):
        with pytest.raises((ValueError, OSError)) as error:
            tell(tmp_path)
        assert len(str(error.value)) < 1000
    with pytest.raises(ValueError, match=message):
        inspect_model(tmp_path)


def test_the_original_anole_is_pointed_on(tmp_path):
    folder = tmp_path / "Anole-7b-v0.1"
    (folder / "models").mkdir(parents=True)
    with pytest.raises(OSError, match=r"this package loads Anole as leloy/Anole-7b-v0\.1-hf"):
        load(folder)


@pytest.mark.parametrize(
    "entry", [["os", "system"], ["trap", "Model"], ["transformers"], [1, 2], ["diffusers", "a.b"]]
)
def test_an_index_imports_nothing_else(folders, tmp_path, monkeypatch, entry):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    index = json.loads((folders["diffusers"] / "model_index.json").read_text())
    (tmp_path / "model").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"model": entry}))
    for tell in (inspect_model, load):
        with pytest.raises(
            ValueError, match="as its model; models of this package are made of classes of diffusers, "
        ):
            tell(tmp_path)


def test_weights_of_another_shape(folders, tmp_path):
    source = folders["transformers"]
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "generation_head" in name)
    save_file(weights | {name: torch.zeros(3, 3)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights of the model its config describes, or has them in another"):
        load(tmp_path)


def test_what_is_told_of_a_converted_model(tmp_path):
    sampling = inspect_model().sampling
    folder = convert_model("emoji-janus", tmp_path / "converted")
    assert inspect_model(folder).sampling == sampling
    stored = load_file(next((folder / "model").glob("*.safetensors")))
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_way_back_starts_from_a_folder(tmp_path):
    with pytest.raises(OSError, match="nowhere is no folder; the way back starts from one that sjd convert wrote"):
        export_published(tmp_path / "nowhere", tmp_path / "target")


def test_damaged_published_files_are_oserrors(tmp_path):
    file = tmp_path / "c2i_B_256.pt"
    write_published_file({"norm.weight": torch.arange(8.0), "output.weight": torch.ones(4, 4)}, file)
    whole = file.read_bytes()
    generator = torch.Generator().manual_seed(0)
    damaged = [b"", b"norm.weight\n", whole[: len(whole) // 2]]
    for place in torch.randint(len(whole), (150,), generator=generator).tolist():
        damaged.append(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    refused = []
    for content in damaged:
        file.write_bytes(content)
        try:
            read_published_file(file)  # anything else that it raises fails the test
        except (OSError, ValueError) as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert max(map(len, refused)) < 700


def test_nobody_has_a_model(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="there is no user of that name"):
        load("~nosuchuser/model")
    with pytest.raises(OSError, match="the bundled model is called emoji-janus, without a slash"):
        load("emoji-janus/")
    with pytest.raises(OSError, match="a Path always means one on disk"):
        load(Path("emoji-janus"))
