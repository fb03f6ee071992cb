"""Models that build on another: an adapter in PEFT's layout, merged into its base."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig

from sjd_pipelines import CoupledSJDScheduler, RevisedJacobiScheduler, SJDAutoRegressivePipeline, SJDEmu3Pipeline
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.bundled import BUNDLED, BundledModel, bundled_folder
from sjd_pipelines.pipelines.adapters import Adapter, record_base
from sjd_pipelines.pipelines.info import format_info, inspect_model
from sjd_pipelines.pipelines.loading import find_family

HEAD = "model.generation_head.vision_head"
QUERIES = "model.language_model.layers.0.self_attn.q_proj"
FRESH = """
import sys
from sjd_pipelines import SJDAutoRegressivePipeline
pipe = SJDAutoRegressivePipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
print(pipe("a red dog", seeds=7, output_type="latent").tokens[0].tolist())
"""


def draw(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe("a red dog", seeds=7, output_type="latent").tokens


def write_adapter(folder, base, tensors, **config):
    folder.mkdir(exist_ok=True)
    save_file({f"base_model.model.{name}": tensor for name, tensor in tensors.items()},
              folder / "adapter_model.safetensors")  # fmt: skip
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(base), "lora_alpha": 8, "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return folder


def pair(module, rows, columns, rank=2, seed=0):
    """The two factors of a change of a `[rows, columns]` weight."""
    generator = torch.Generator().manual_seed(seed)
    down, up = torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)
    return {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}


@pytest.fixture
def base(tmp_path):
    """A Janus in transformers layout, with no companions."""
    folder = tmp_path / "base"
    pipe = toy_pipeline(4, 16)
    pipe.model.save_pretrained(folder)
    pipe.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(base, tmp_path):
    """One that changes what is drawn, and records its base."""
    folder = write_adapter(tmp_path / "fast", "../base", pair(HEAD, 16, 32) | pair(QUERIES, 32, 32, seed=1))
    record_base(folder, base)
    return folder


@pytest.fixture
def bundled(base, adapter, tmp_path, monkeypatch):
    """Both in the table, for a time."""
    monkeypatch.setattr("sjd_pipelines.bundled.ROOT", tmp_path)
    monkeypatch.setitem(BUNDLED, "base", BundledModel("SJDJanusPipeline", "a toy"))
    monkeypatch.setitem(BUNDLED, "fast", BundledModel("SJDJanusPipeline", "a quicker toy", base="base"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "base"}))


@pytest.mark.parametrize("name", [name for name, model in BUNDLED.items() if model.base is not None])
def test_bundled_adapters_name_their_base_and_know_its_weights(name):
    adapter = Adapter.of_folder(bundled_folder(name))
    assert adapter.base == BUNDLED[name].base
    assert (adapter.folder / "base.json").is_file()
    adapter.check_base(bundled_folder(adapter.base))


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "vision_head"]},
        {"r": 3, "use_rslora": True, "target_modules": ["k_proj"], "modules_to_save": ["vision_head"]},
        {"r": 2, "rank_pattern": {"o_proj": 5}, "alpha_pattern": {"layers.1.self_attn.o_proj": 40, "up_proj": 3},
         "target_modules": ["o_proj", "up_proj"]},
    ],
    ids=["plain", "stabilised", "patterns"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_what_peft_writes_is_what_peft_draws(base, tmp_path, settings):
    peft = pytest.importorskip("peft")
    reference = toy_pipeline(4, 16)
    plain = draw(reference)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = peft.LoraConfig(init_lora_weights=False, **settings)
        wrapped = peft.get_peft_model(reference.model, config)
        for name, parameter in wrapped.named_parameters():
            if "modules_to_save" in name:
                parameter.data += 0.3 * torch.randn(parameter.shape)
    wrapped.eval()
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(tmp_path / "adapter")
    unmerged = draw(reference)
    pipe = SJDAutoRegressivePipeline.from_pretrained(tmp_path / "adapter")
    assert torch.equal(draw(pipe), unmerged)
    assert not torch.equal(unmerged, plain)
    merged = wrapped.merge_and_unload().state_dict()
    assert all(torch.equal(tensor, merged[name]) for name, tensor in pipe.model.state_dict().items())


def test_by_name_by_folder_and_from_elsewhere(bundled, adapter, tmp_path, monkeypatch):
    expected = draw(SJDAutoRegressivePipeline.from_pretrained("fast"))
    assert not torch.equal(expected, draw(SJDAutoRegressivePipeline.from_pretrained("base")))
    assert torch.equal(draw(SJDAutoRegressivePipeline.from_pretrained(adapter)), expected)
    assert torch.equal(draw(SJDAutoRegressivePipeline.from_pretrained(str(adapter), dtype=torch.float32)), expected)
    assert find_family(adapter).__name__ == "SJDJanusPipeline"
    with pytest.raises(ValueError, match=r"^fast holds a SJDJanusPipeline, not a SJDEmu3Pipeline"):
        SJDEmu3Pipeline.from_pretrained("fast")


def test_a_relative_base_is_looked_for_beside_the_adapter(adapter, tmp_path, monkeypatch):
    expected = draw(SJDAutoRegressivePipeline.from_pretrained(adapter))
    monkeypatch.chdir(tmp_path / "base")
    assert torch.equal(draw(SJDAutoRegressivePipeline.from_pretrained(adapter)), expected)


def test_the_command_line_takes_one(sjd, bundled, adapter):
    status, out, err = sjd("generate", "a red dog", "--model", "fast", "--seed", 1, "-o", "dog.png", "--quiet")
    assert (status, out, err) == (0, "dog.png\n", "")
    status, out, err = sjd("info", "fast", "--json", "fast.json")
    assert (status, err) == (0, "")
    assert out.startswith("fast: SJDJanusPipeline, an adapter on base\n")
    (adapter / "adapter_config.json").write_text("[]")
    status, _, err = sjd("info", adapter)
    assert status == 2
    assert "JSON object" in err


def test_a_saved_pipeline_has_merged_weights(adapter, tmp_path):
    pipe = SJDAutoRegressivePipeline.from_pretrained(adapter)
    pipe.save_pretrained(tmp_path / "saved")
    shutil.rmtree(adapter)
    shutil.rmtree(tmp_path / "base")
    command = [sys.executable, "-c", FRESH, str(tmp_path / "saved")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip().splitlines()[-1] == str(draw(pipe)[0].tolist())


def test_what_an_adapter_has_of_its_own_takes_the_place_of_the_bases(base, adapter):
    pipe = SJDAutoRegressivePipeline.from_pretrained(adapter)
    assert pipe.companions() == []
    assert pipe.sampling_defaults()["guidance_scale"] == 5.0
    toy = toy_pipeline(4, 16, seed=3)
    toy.reviser.save_pretrained(adapter / "reviser")
    assert isinstance(SJDAutoRegressivePipeline.from_pretrained(adapter).scheduler, RevisedJacobiScheduler)
    generation = json.loads((base / "generation_config.json").read_text()) | {"guidance_scale": 1.5}
    (adapter / "generation_config.json").write_text(json.dumps(generation))
    CoupledSJDScheduler(window=5).save_pretrained(adapter / "scheduler")
    toy.drafter.save_pretrained(base / "drafter")  # companions are no weights that it depends on
    pipe = SJDAutoRegressivePipeline.from_pretrained(adapter, dtype=torch.bfloat16)
    assert isinstance(pipe.scheduler, CoupledSJDScheduler)
    assert pipe.scheduler.window == 5
    assert (pipe.companions(), pipe.reviser.dtype) == (["drafter", "reviser"], torch.bfloat16)
    assert pipe.sampling_defaults()["guidance_scale"] == inspect_model(adapter).sampling["guidance_scale"] == 1.5
    assert format_info(inspect_model(adapter)).splitlines()[0].endswith("an adapter on " + str(adapter / "../base"))
    own = RevisedJacobiScheduler()
    assert SJDAutoRegressivePipeline.from_pretrained(adapter, scheduler=own).scheduler is own


def test_on_a_diffusers_folder(tmp_path):
    toy = toy_pipeline(4, 16, scheduler=CoupledSJDScheduler(window=3))
    toy.save_pretrained(tmp_path / "base")
    folder = write_adapter(tmp_path / "fast", tmp_path / "base", pair(HEAD, 16, 32))
    record_base(folder, tmp_path / "base")
    pipe = SJDAutoRegressivePipeline.from_pretrained(folder)
    assert isinstance(pipe.scheduler, CoupledSJDScheduler)
    change = pipe.model.get_parameter(f"{HEAD}.weight") - toy.model.get_parameter(f"{HEAD}.weight")
    factors = pair(HEAD, 16, 32)
    expected = factors[f"{HEAD}.lora_B.weight"] @ factors[f"{HEAD}.lora_A.weight"] * (8 / 2)
    assert torch.allclose(change, expected, atol=1e-5)
    assert set(json.loads((folder / "base.json").read_text())["weights"]) == {"model/model.safetensors"}


def test_half_precision_is_rounded_once(adapter):
    exact = SJDAutoRegressivePipeline.from_pretrained(adapter).model.state_dict()
    half = SJDAutoRegressivePipeline.from_pretrained(adapter, dtype=torch.bfloat16).model.state_dict()
    base = SJDAutoRegressivePipeline.from_pretrained(adapter.parent / "base").model.get_parameter(f"{HEAD}.weight")
    change = exact[f"{HEAD}.weight"] - base
    expected = (base.bfloat16().float() + change).bfloat16()
    assert torch.allclose(half[f"{HEAD}.weight"].float(), expected.float(), rtol=2**-7)


def test_another_base_is_refused(adapter, base):
    weights = load_file(base / "model.safetensors")
    weights[f"{HEAD}.weight"] += 1e-3
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"is an adapter for other weights than .* has: model\.safetensors must have"):
        SJDAutoRegressivePipeline.from_pretrained(adapter)
    (base / "model.safetensors").rename(base / "renamed.safetensors")
    with pytest.raises(ValueError, match="found no such file"):
        SJDAutoRegressivePipeline.from_pretrained(adapter)


FITS = pair(HEAD, 16, 32)


@pytest.mark.parametrize(
    ("tensors", "config", "error", "message"),
    [
        (FITS, {"peft_type": "LOHA"}, ValueError, r"of type 'LOHA'; only LORA is merged here"),
        (FITS, {"use_dora": True}, ValueError, r"with use_dora, not plain LoRA; merge it with the peft package"),
        (FITS, {"init_lora_weights": "pissa"}, ValueError, r"with init_lora_weights, not plain LoRA"),
        (FITS, {"bias": "all"}, ValueError, r"with bias, not plain LoRA"),
        (FITS, {"of_the_future": 3}, ValueError, r"with of_the_future, not plain LoRA"),
        (FITS, {"lora_alpha": None}, ValueError, r"lora_alpha, and all in alpha_pattern, must be finite numbers"),
        (FITS, {"lora_alpha": float("nan")}, ValueError, r"must be finite numbers"),
        (FITS, {"alpha_pattern": ["o_proj"]}, ValueError, r"must be finite numbers"),
        (FITS, {"alpha_pattern": {"[": 3}}, ValueError, r"can't be loaded: (error|PatternError), "),
        (FITS, {"base_model_name_or_path": None}, OSError, r"names no base: set base_model_name_or_path"),
        (FITS, {"base_model_name_or_path": "gone"}, OSError, r"on gone, which can't be found: gone is neither"),
        (FITS, {"base_model_name_or_path": "."}, ValueError, r"is an adapter on an adapter"),
        (pair("model.nothing", 2, 2), {}, ValueError, r"fit model: there is no place for model\.nothing\.lora_"),
        (pair("model.generation_embeddings", 16, 8), {}, ValueError, r"no place for model\.generation_emb"),
        (pair(HEAD, 17, 32), {}, ValueError, rf"does not fit {HEAD}: \(17, 32\) instead of \(16, 32\)"),
        ({f"{HEAD}.lora_A.weight": torch.ones(2, 32)}, {}, ValueError, rf"no place for {HEAD}\.lora_A\.weight"),
        (FITS | {f"{HEAD}.bias": torch.ones(3)}, {}, ValueError, rf"fit {HEAD}\.bias: \(3,\) instead of \(16,\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(base, tmp_path, tensors, config, error, message):
    folder = write_adapter(tmp_path / "adapter", base, tensors, **config)
    with pytest.raises(error, match=message):
        SJDAutoRegressivePipeline.from_pretrained(folder)


def test_quantised_weights_take_no_adapter(adapter):
    with pytest.raises(ValueError, match=r"is an adapter, which quantised weights can't take; load it without"):
        SJDAutoRegressivePipeline.from_pretrained(adapter, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    networks = {"model": toy_pipeline(4, 16).model.to("meta")}
    with pytest.raises(ValueError, match=rf"can't be merged into {HEAD}\.weight, which is quantised or not in memory"):
        Adapter.of_folder(adapter).merge_into(networks)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("base.json", "{}", "has no weights, a map from file names"),
        ("base.json", "[", "is not valid JSON"),
        ("adapter_model.safetensors", "nothing", "is not a complete safetensors file"),
        ("adapter_config.json", "3", "where a JSON object is expected"),
    ],
)
def test_damaged_folders_are_refused(adapter, file, content, message):
    (adapter / file).write_text(content)
    with pytest.raises(OSError, match=message):
        SJDAutoRegressivePipeline.from_pretrained(adapter)


def test_an_adapter_without_weights_is_refused(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(OSError, match=r"has no adapter_model\.safetensors\."):
        SJDAutoRegressivePipeline.from_pretrained(adapter)
