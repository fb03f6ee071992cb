"""Options of loading: every spelling, every layout, the same errors."""

import pytest
import torch
from diffusers.quantizers import PipelineQuantizationConfig
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig

from sjd_pipelines import SJDChameleonPipeline, SJDJanusPipeline, SJDLlamaGenPipeline
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
    options = for_diffusers({"device_map": AUTO, "quantization_config": config})
    assert options["device_map"] == "balanced"
    assert options["quantization_config"].quant_mapping == {"model": config}
    assert for_transformers(options) == {"device_map": AUTO, "quantization_config": config}
    assert for_diffusers(options) == options
    with pytest.raises(ValueError, match="an entry for 'model'"):
        for_transformers({"quantization_config": PipelineQuantizationConfig(quant_mapping={"unet": config})})
