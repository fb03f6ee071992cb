"""Saving, loading in a fresh process, and what is refused."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sjd_pipelines import CoupledSJDScheduler, SeededJacobiScheduler, SJDAutoRegressivePipeline, SJDJanusPipeline

from .tiny import MEMBERS

FRESH = """
import sys, torch
from sjd_pipelines import SJDAutoRegressivePipeline
pipe = SJDAutoRegressivePipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
output = pipe("a red dog", generator=torch.Generator().manual_seed(7), output_type="latent")
print(type(pipe).__name__, type(pipe.scheduler).__name__, pipe.scheduler.window, output.tokens[0].tolist())
"""

# The way of a hub repository with code of its own: no module of this package is loaded before diffusers asks.
OF_DIFFUSERS = """
import sys
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], custom_pipeline=sys.argv[1], trust_remote_code=True)
print(type(pipe).__name__, type(pipe.scheduler).__name__, pipe.scheduler.window)
"""


def draw(pipe):
    return pipe("a red dog", generator=torch.Generator().manual_seed(7), output_type="latent").tokens


def fresh_process(folder, code=FRESH):
    command = [sys.executable, "-c", code, str(folder)]
    # diffusers keeps a copy of a repository's code.
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules")}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return result.stdout.strip().splitlines()[-1]


def transformers_folder(pipe, folder):
    pipe.model.save_pretrained(folder)
    pipe.processor.save_pretrained(folder)
    return folder


def test_diffusers_folder_loads_in_a_fresh_process(pipe, tmp_path):
    pipe.scheduler = CoupledSJDScheduler(window=5, coupling="gumbel")
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "SJDJanusPipeline"
    assert index["scheduler"] == ["sjd_pipelines", "CoupledSJDScheduler"]
    assert index["model"] == ["transformers", "JanusForConditionalGeneration"]
    assert fresh_process(tmp_path) == f"SJDJanusPipeline CoupledSJDScheduler 5 {draw(pipe)[0].tolist()}"


def test_diffusers_loads_a_folder_by_itself(pipe, tmp_path):
    pipe.scheduler = CoupledSJDScheduler(window=5)
    pipe.save_pretrained(tmp_path)
    (tmp_path / "pipeline.py").write_text("from sjd_pipelines import SJDJanusPipeline\n")
    assert fresh_process(tmp_path, OF_DIFFUSERS) == "SJDJanusPipeline CoupledSJDScheduler 5"


@pytest.mark.slow  # as test_families does of every family
def test_transformers_folder_loads_in_a_fresh_process(pipe, tmp_path):
    pipe.scheduler = SeededJacobiScheduler()
    expected = draw(pipe)[0].tolist()
    window = pipe.scheduler.window
    line = fresh_process(transformers_folder(pipe, tmp_path))
    assert line == f"SJDJanusPipeline SeededJacobiScheduler {window} {expected}"


def test_sharded_weights_and_options(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path, max_shard_size="200KB")
    pipe.processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = SJDAutoRegressivePipeline.from_pretrained(
        tmp_path, dtype=torch.bfloat16, device_map="cpu", scheduler=CoupledSJDScheduler(window=3)
    )
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.scheduler.window == 3
    loaded.set_progress_bar_config(disable=True)
    assert draw(loaded).shape == (1, 16)


def test_swapped_scheduler_survives_saving(pipe, tmp_path):
    pipe.scheduler = CoupledSJDScheduler.from_config(pipe.scheduler.config, window=32)
    pipe.save_pretrained(tmp_path)
    loaded = SJDJanusPipeline.from_pretrained(tmp_path)
    assert isinstance(loaded.scheduler, CoupledSJDScheduler)
    assert loaded.scheduler.window == 32


def lasting(config):
    """What a pipeline is made of, without what saving it notes beside."""
    return {name: value for name, value in config.items() if name not in ("_class_name", "_diffusers_version")}


@pytest.mark.parametrize("member", MEMBERS)
def test_from_pipe_shares_components(request, member):
    pipe = request.getfixturevalue(member)
    other = SJDAutoRegressivePipeline.from_pipe(pipe)
    assert type(other) is type(pipe)
    assert lasting(other.config) == lasting(pipe.config)
    assert all(part is pipe.components[name] for name, part in other.components.items())


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), OSError, "has neither model_index.json nor config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), OSError, "is not valid JSON"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            ValueError,
            "has model_type 'bert'; known are",
        ),
        (
            lambda folder: (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}'),
            ValueError,
            "is for FluxPipeline; known are",
        ),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            OSError,
            "has no .safetensors weights; pickled weights are not loaded, convert them first",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:5000]
            ),
            OSError,
            "is not a complete safetensors file .* download it again",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x02}q\x00." * 100),
            OSError,
            "is not a complete safetensors file",
        ),
    ],
)
def test_damaged_folders_are_refused(pipe, tmp_path, damage, error, message):
    damage(transformers_folder(pipe, tmp_path))
    with pytest.raises(error, match=message):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)


def test_a_missing_part_of_the_weights_is_named(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path, max_shard_size="200KB")
    pipe.processor.save_pretrained(tmp_path)
    last = sorted(tmp_path.glob("model-*.safetensors"))[-1]
    last.unlink()
    message = f"lacks {last.name}, which model.safetensors.index.json names; download it again"
    with pytest.raises(OSError, match=message):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)


def test_missing_weights_are_refused(pipe, tmp_path):
    file = transformers_folder(pipe, tmp_path) / "model.safetensors"
    tensors = {key: value for key, value in load_file(file).items() if "generation_head" not in key}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        ValueError,
        match=r"lacks 4 weights of the model its config describes, or has them in .*: \['model.generation_head",
    ):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)


def test_sources_that_are_no_model(tmp_path):
    with pytest.raises(OSError, match=r"neither a folder nor a hub id \(owner/name\)"):
        SJDAutoRegressivePipeline.from_pretrained(str(tmp_path / "absent"))
    file = tmp_path / "weights.bin"
    file.write_bytes(b"0")
    with pytest.raises(OSError, match="is a file; from_pretrained takes the folder"):
        SJDAutoRegressivePipeline.from_pretrained(file)


def changed(file, change):
    """Rewrite a safetensors file; `change` takes and gives a map of tensors."""
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}  # of which the file is no part
    save_file(change(tensors), file, metadata={"format": "pt"})


def without(part):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def wider(part):
    return lambda tensors: {
        name: torch.zeros([size + 1 for size in tensor.shape]) if part in name else tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("change", [without, wider])
@pytest.mark.parametrize(("network", "part"), [("model", "vision_head"), ("model", "quantize"), ("reviser", "code")])
def test_a_network_that_is_not_whole_is_refused_in_diffusers_layout_too(pipe, tmp_path, network, part, change):
    pipe.save_pretrained(tmp_path)
    changed(next((tmp_path / network).glob("*.safetensors")), change(part))
    with pytest.raises(
        ValueError, match=rf"{network} lacks \d weights of the model its config describes, or has them"
    ):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)


def stored_as(dtype):
    return lambda tensors: {
        name: tensor.to(dtype) if name.endswith("q_proj.weight") else tensor for name, tensor in tensors.items()
    }


def with_copy(part, copy):
    return lambda tensors: (
        tensors | {name.replace(part, copy): tensor.clone() for name, tensor in tensors.items() if part in name}
    )


LAYER, QUERIES = "language_model.layers.0.", "language_model.layers.0.self_attn.q_proj."
NOT_ITS_OWN = [
    (stored_as(torch.int8), r"q_proj\.weight as I8, and nothing says which number that stands for"),
    (stored_as(torch.float8_e4m3fn), r"q_proj\.weight as F8_E4M3, and nothing says which number"),
    (
        with_copy(LAYER, "language_model.layers.9."),
        r"has 9 weights for which the model its config describes has no pl",
    ),
    (with_copy(QUERIES + "weight", QUERIES + "bias"), rf"has 1 weights for which .*{QUERIES}bias'\]; put the config"),
]


@pytest.mark.parametrize("layout", ["diffusers", "transformers"])
@pytest.mark.parametrize(("change", "message"), NOT_ITS_OWN)
def test_weights_that_the_config_does_not_describe_are_refused(pipe, tmp_path, layout, change, message):
    if layout == "diffusers":
        pipe.save_pretrained(tmp_path)
    else:
        transformers_folder(pipe, tmp_path)
    changed(next(tmp_path.rglob("model.safetensors")), change)
    with pytest.raises(ValueError, match=message):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)


def test_what_libraries_have_left_beside_weights_is_no_fault(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    left = {"language_model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "position_ids": torch.arange(3)}
    changed(tmp_path / "model" / "model.safetensors", lambda tensors: tensors | left)
    assert torch.equal(
        SJDAutoRegressivePipeline.from_pretrained(tmp_path).model.lm_head.weight, pipe.model.lm_head.weight
    )


def test_a_network_of_ours_with_weights_of_modules_that_it_lacks_is_refused(par_toy, tmp_path):
    par_toy.save_pretrained(tmp_path)
    file = tmp_path / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"parallel_tokens": 1}))
    with pytest.raises(ValueError, match=r"has no place: \['learned_embedding\.weight'\]"):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)


def test_a_companion_of_more_layers_than_its_config_says_is_refused(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    file = next((tmp_path / "reviser").glob("*.safetensors"))
    name = next(name for name in load_file(file) if name.endswith(".weight"))
    changed(file, with_copy(name, name.removesuffix("weight") + "scale"))
    with pytest.raises(ValueError, match="has 1 weights for which the model its config describes has no place"):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"model": None}, "model_index.json names no model, which a SJDJanusPipeline needs"),
        ({"model": [None, None]}, "model_index.json names no model, which a SJDJanusPipeline needs"),
        ({"model": ["transformers", "BertModel"]}, "names BertModel as its model; a SJDJanusPipeline has a JanusForC"),
        ({"model": ["transformers", "NoSuchModel"]}, "names NoSuchModel as its model; a SJDJanusPipeline has a Janus"),
        (
            {"reviser": ["sjd_pipelines", "EagleDrafter"]},
            "names EagleDrafter as its reviser; a SJDJanusPipeline has",
        ),
        ({"scheduler": ["diffusers", "DDPMScheduler"]}, "must be one of this package's decoding schedulers, got DDPM"),
        ({"scheduler": ["sjd_pipelines", "DecodingScheduler"]}, "Can't instantiate abstract class DecodingScheduler"),
    ],
)
def test_an_index_that_names_other_classes_is_refused(pipe, tmp_path, entry, message):
    pipe.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | entry))
    with pytest.raises(ValueError, match=message):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)


def test_a_folder_without_a_component_is_refused(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    (tmp_path / "processor").rename(tmp_path / "other")
    with pytest.raises(OSError, match=r"has no folder processor, which its model_index\.json names\."):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)
    loaded = SJDAutoRegressivePipeline.from_pretrained(tmp_path, processor=pipe.processor)
    assert torch.equal(loaded.model.lm_head.weight, pipe.model.lm_head.weight)


def test_a_file_of_a_library_that_is_no_json_is_refused_by_the_name_of_its_folder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    (tmp_path / "processor" / "tokenizer.json").write_text("[")
    with pytest.raises(ValueError, match=f"^{tmp_path} holds a file that is not valid JSON: "):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)
