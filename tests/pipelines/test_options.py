"""Options of loading: every spelling, every layout, the same errors."""

import pytest
import torch
from diffusers.quantizers import PipelineQuantizationConfig
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig

from sjd_pipelines import SJDAutoRegressivePipeline, SJDChameleonPipeline, SJDJanusPipeline, SJDLlamaGenPipeline
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.pipelines.devices import read_device
from sjd_pipelines.pipelines.options import (
    AUTO,
    for_diffusers,
    for_transformers,
    read_dtype,
    read_options,
    stored_dtype,
)


@pytest.mark.parametrize("value", [torch.bfloat16, "bfloat16", "torch.bfloat16", "bf16"])
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_every_spelling_of_a_dtype_is_that_dtype(name, value):
    assert read_options({name: value}, SJDJanusPipeline) == {"dtype": torch.bfloat16}


def test_the_others():
    names = {
        "half": torch.float16,
        "float": torch.float32,
        "fp32": torch.float32,
        "float64": torch.float64,
        AUTO: AUTO,
    }
    assert {name: read_dtype(name) for name in names} == names
    assert read_options({"dtype": None, "torch_dtype": None}, SJDJanusPipeline) == {}
    assert read_options({"dtype": "bf16", "torch_dtype": torch.bfloat16}, SJDJanusPipeline) == {
        "dtype": torch.bfloat16
    }


@pytest.mark.parametrize(
    "value", ["int8", torch.int64, "bfloat", "nn", 16, ["bf16"], {"model": torch.half}, "x" * 999]
)
def test_what_is_no_dtype(value):
    with pytest.raises(ValueError, match=r"^dtype must be a torch dtype such as torch\.bfloat16, its name") as error:
        read_dtype(value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (
            SJDJanusPipeline,
            {"dtype": "bf16", "torch_dtype": "fp16"},
            "dtype and torch_dtype differ; pass one of them.",
        ),
        (SJDJanusPipeline, {"use_safetensors": False}, "use_safetensors must be True: weights are read from"),
        (SJDJanusPipeline, {"shceduler": None}, "SJDJanusPipeline has no option 'shceduler'; did you mean scheduler."),
        (SJDLlamaGenPipeline, {"vqfile": "a"}, "SJDLlamaGenPipeline has no option 'vqfile'; did you mean vq_file."),
        (SJDChameleonPipeline, {"safety_checker": None}, "SJDChameleonPipeline has no option 'safety_checker'"),
        (
            SJDJanusPipeline,
            {"window": 3},
            "SJDJanusPipeline has no option 'window'; it is a setting of the schedulers ",
        ),
        (SJDJanusPipeline, {"kwargs": 1}, "SJDJanusPipeline has no option 'kwargs'"),
        (SJDJanusPipeline, {"self": 1}, "SJDJanusPipeline has no option 'self'"),
    ],
)
def test_what_is_no_option(family, options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        read_options(options, family)
    assert str(error.value).startswith(message)


def test_options_of_a_family_and_of_all():
    given = {"scheduler": None, "device_map": "cpu", "vq_model": "a", "use_safetensors": True}
    assert read_options(given, SJDChameleonPipeline) == {"scheduler": None, "device_map": "cpu", "vq_model": "a"}


def test_the_dtype_of_a_file_is_that_of_most_of_its_numbers(tmp_path):
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_file({"a": torch.zeros(9, dtype=torch.float16), "n": torch.zeros(99, dtype=torch.int64)}, first)
    save_file({"b": torch.zeros(4, dtype=torch.bfloat16), "c": torch.zeros((3, 3), dtype=torch.bfloat16)}, second)
    assert stored_dtype([first]) == torch.float16
    assert stored_dtype([first, second]) == torch.bfloat16
    assert stored_dtype([]) == torch.float32


def test_libraries_get_their_own_words():
    config = BitsAndBytesConfig(load_in_8bit=True)
    options = for_diffusers({"device_map": AUTO, "quantization_config": config}, SJDJanusPipeline)
    assert options["device_map"] == "balanced"
    assert options["quantization_config"].quant_mapping == {"model": config}
    assert for_transformers(options) == {"device_map": AUTO, "quantization_config": config}
    assert for_diffusers(options, SJDJanusPipeline) == options
    flow = for_diffusers({"quantization_config": config}, SJDLlamaGenPipeline)
    assert flow["quantization_config"].quant_mapping == {"transformer": config}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The same model in both layouts."""
    folder, pipe = tmp_path_factory.mktemp("layouts"), toy_pipeline(4, 64)
    pipe.save_pretrained(folder / "diffusers")
    pipe.model.save_pretrained(folder / "transformers")
    pipe.processor.save_pretrained(folder / "transformers")
    return folder / "diffusers", folder / "transformers"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"attn_implementation": "flash_attention_2"},
            "attn_implementation: attention is PyTorch's SDPA, which",
        ),
        ({"trust_remote_code": True}, "trust_remote_code: no code that comes with a model is run."),
        ({"device_map": {"": "cpu"}}, "device_map must be 'auto', 'balanced' or a device: device must be one of this"),
        ({"device_map": "nonsense"}, "device_map must be 'auto', 'balanced' or a device: device must be one of this"),
        ({"device_map": "hpu"}, "device_map must be 'auto', 'balanced' or a device: device must be one of this"),
        (
            {"quantization_config": {"load_in_8bit": True}},
            "quantization_config must be a configuration of transformers",
        ),
        (
            {"quantization_config": PipelineQuantizationConfig(quant_mapping={"unet": BitsAndBytesConfig()})},
            "quantization_config must have a quant_mapping with an entry for 'model'.",
        ),
        ({"subfolder": "../other"}, "subfolder must be the name of a folder inside of the model's, got '../other'."),
        ({"subfolder": 3}, "subfolder must be the name of a folder inside of the model's, got 3."),
        ({"scheduler": "sdj"}, "there is no scheduler 'sdj'; did you mean sjd."),
    ],
)
def test_a_layout_refuses_what_the_other_one_does(layouts, options, message):
    said = set()
    for folder in layouts:
        with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is compared below
            SJDAutoRegressivePipeline.from_pretrained(folder, **options)
        said.add(str(refused.value))
    assert len(said) == 1
    assert said.pop().startswith(message)


@pytest.mark.parametrize(
    "options",
    [{"device_map": "cpu"}, {"device_map": torch.device("cpu")}, {"scheduler": "sjd"}, {"subfolder": ""}],
    ids=str,
)
def test_a_layout_takes_what_the_other_one_does(layouts, options):
    for folder in layouts:
        pipe = SJDAutoRegressivePipeline.from_pretrained(folder, **options)
        assert pipe.device == torch.device("cpu")
        assert type(pipe.scheduler).__name__ == "SJDScheduler" or "scheduler" not in options


@pytest.mark.parametrize("absent", ["meta", "hpu", "xla", "privateuseone", "abacus", "", "mkldnn", "cuda:99999999999"])
def test_a_device_that_there_is_not_is_refused_shortly(pipe, absent):
    for move in (pipe.to, lambda name: pipe.to(device=name), read_device) if absent != "meta" else (read_device,):
        with pytest.raises(ValueError, match=r"^device must be one of this machine's, cpu.*; got '.*'\.$") as refused:
            move(absent)
        assert len(str(refused.value)) < 150
    assert pipe.device == torch.device("cpu")


def test_a_device_that_there_is():
    assert read_device("cpu") == read_device(torch.device("cpu")) == torch.device("cpu")
    for value in (True, None, 1.5, ["cpu"]):
        with pytest.raises(ValueError, match="device must be one of this machine's"):
            read_device(value)
