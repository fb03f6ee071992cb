"""Models as people have them: offloaded, quantised, with LoRA adapters."""

import subprocess
import sys

import accelerate
import pytest
import torch

from sjd_pipelines import JacobiScheduler, SeededJacobiScheduler, SJDAutoRegressivePipeline
from sjd_pipelines.benchmark.toy import toy_pipeline

OPTIONS = {"temperature": 0, "output_type": "np"}
PROMPTS = ["a red dog", "two blue cat on a red house"]


def member(families, name):
    pipe = families["chameleon"]("lumina-mgpt") if name == "lumina" else families[name]()
    pipe.scheduler = JacobiScheduler(window=5)
    return pipe


@pytest.mark.parametrize("name", ["llamagen", "emu3", "lumina"])
def test_weights_on_the_cpu_until_they_are_used(families, name):
    """As sequential offload has it: parameters are on the meta device between the calls of their modules."""
    pipe = member(families, name)
    expected = pipe(PROMPTS, **OPTIONS)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            accelerate.cpu_offload(component, execution_device=torch.device("cpu"))
    output = pipe(PROMPTS, **OPTIONS)
    assert torch.equal(output.tokens, expected.tokens)
    assert (output.images == expected.images).all()


@pytest.mark.parametrize(
    ("name", "modules"),
    [("llamagen", ["to_qkv", "to_out"]), ("emu3", ["q_proj", "v_proj"]), ("lumina", ["v_proj", "lm_head"])],
)
def test_lora_adapters(peft, families, name, modules, tmp_path):
    pipe = member(families, name)
    plain = pipe(PROMPTS, **OPTIONS).tokens
    network = pipe.transformer if name == "llamagen" else pipe.model
    with torch.random.fork_rng(devices=[]):
        network.add_adapter(peft.LoraConfig(r=4, target_modules=modules, init_lora_weights=False), "style")
    adapted = pipe(PROMPTS, **OPTIONS).tokens
    assert not torch.equal(adapted, plain)
    network.disable_adapters()
    assert torch.equal(pipe(PROMPTS, **OPTIONS).tokens, plain)
    network.enable_adapters()
    assert torch.equal(pipe(PROMPTS, **OPTIONS).tokens, adapted)


@pytest.mark.slow
def test_a_compiled_language_model_draws_the_same():
    pipe = toy_pipeline(4, 64)
    pipe.set_progress_bar_config(disable=True)
    options = {"seeds": 1, "output_type": "latent", "scheduler": SeededJacobiScheduler(window=4)}
    plain = pipe("a red dog", **options).tokens
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    pipe.model.model.language_model.compile(backend=backend)
    assert torch.equal(pipe("a red dog", **options).tokens, plain)
    assert seen


WITHOUT_PEFT = """
import sys
sys.modules["peft"] = None
from sjd_pipelines import SJDAutoRegressivePipeline
pipe = SJDAutoRegressivePipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
print(pipe("a red dog", seeds=1, output_type="latent").tokens[0].tolist())
"""


@pytest.mark.slow  # its fresh process; test_adapters.py has one, too
def test_a_pipeline_with_an_adapter_is_saved_whole(peft, tmp_path):
    pipe = toy_pipeline(4, 64)
    pipe.set_progress_bar_config(disable=True)

    def tokens(pipe):
        return pipe("a red dog", seeds=1, output_type="latent").tokens[0].tolist()

    plain = tokens(pipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        pipe.model.add_adapter(config, "style")
    adapted = tokens(pipe)
    assert adapted != plain
    pipe.save_pretrained(tmp_path / "first")
    assert tokens(pipe) == adapted  # it still has its adapter
    (tmp_path / "first").rename(tmp_path / "second")
    assert not list(tmp_path.rglob("adapter_*"))
    command = [sys.executable, "-c", WITHOUT_PEFT, str(tmp_path / "second")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip().splitlines()[-1] == str(adapted)
    pipe.model.disable_adapters()
    pipe.save_pretrained(tmp_path / "third")
    loaded = SJDAutoRegressivePipeline.from_pretrained(tmp_path / "third")
    loaded.set_progress_bar_config(disable=True)
    assert tokens(loaded) == plain


def quantised_emu3(families, folder, config):
    pipe = member(families, "emu3")
    pipe.model.save_pretrained(folder)
    pipe.tokenizer.save_pretrained(folder)
    quantised = SJDAutoRegressivePipeline.from_pretrained(
        folder, image_area=36, quantization_config=config, device_map="cpu"
    )
    quantised.set_progress_bar_config(disable=True)
    return quantised


def test_quantised_language_model(families, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head", "vqmodel"])
    quantised = quantised_emu3(families, tmp_path, config)
    assert type(quantised.model.model.text_model.layers[0].mlp.up_proj).__name__ == "Linear8bitLt"
    output = quantised(PROMPTS, **OPTIONS)
    assert output.images.shape == (2, 6, 6, 3)


def test_weights_quantised_by_torchao(families, tmp_path):
    """Weights that are tensors of a class of their own."""
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    config = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=["vqmodel"])
    quantised = quantised_emu3(families, tmp_path, config)
    weight = quantised.model.model.text_model.layers[0].mlp.up_proj.weight
    assert type(weight).__module__.startswith("torchao")
    assert quantised(PROMPTS, **OPTIONS).images.shape == (2, 6, 6, 3)
