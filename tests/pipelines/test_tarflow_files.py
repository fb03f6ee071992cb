"""The flow pipeline: folders, published files, and files that are refused."""

import json
import math
import subprocess
import sys

import pytest
import torch

from sjd_pipelines import (
    FrontierFlowSolver,
    GaussSeidelJacobiFlowSolver,
    SJDAutoRegressivePipeline,
    TarFlowPipeline,
)
from sjd_pipelines.models import write_published_file

from .test_tarflow import pixels, tiny_pipeline


def test_saved_folders_load(flow_pipe, tmp_path):
    flow_pipe.scheduler = FrontierFlowSolver(tolerance=1e-3, window=9)
    expected = pixels(flow_pipe, "dog", seeds=1)
    flow_pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["transformer"] == ["sjd_pipelines", "TarFlowTransformer2DModel"]
    assert index["scheduler"] == ["sjd_pipelines", "FrontierFlowSolver"]
    again = TarFlowPipeline.from_pretrained(tmp_path).to(flow_pipe.device)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(pixels(again, "dog", seeds=1), expected)
    assert again.scheduler.config.window == 9
    assert again.sampling_defaults()["guidance_scale"] == 0.5
    code = (
        "import sys; from sjd_pipelines import TarFlowPipeline\n"
        "pipe = TarFlowPipeline.from_pretrained(sys.argv[1]); print(type(pipe.scheduler).__name__, pipe.class_names())"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout == "FrontierFlowSolver ['cat', 'dog', 'red fox']\n"


def test_names_keep_their_classes_in_a_folder(tmp_path):
    """JSON is written with sorted keys: 10 comes before 2."""
    pipe = tiny_pipeline(num_classes=12)
    names = {index: f"kind {chr(97 + index)}" for index in range(12) if index != 5}
    TarFlowPipeline(pipe.transformer, pipe.scheduler, names).save_pretrained(tmp_path)
    again = TarFlowPipeline.from_pretrained(tmp_path)
    assert again.class_names() == [names.get(index, "5") for index in range(12)]
    assert again.prepare_labels(["kind c", "kind k", "5"], 1) == [2, 10, 5]


def test_published_file(flow_pipe, tmp_path):
    pipe = tiny_pipeline(gain=0.01, hidden_size=64, attention_head_dim=64, num_blocks=8)
    weights = pipe.transformer.state_dict()
    masks = {f"blocks.{block}.attn_mask": torch.ones(16, 16).tril() for block in range(8)}
    file = tmp_path / "afhq_model_8_768_8_8_0.07.pth"
    torch.save(weights | masks, file)
    loaded = TarFlowPipeline.from_single_file(file, scheduler="published")
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded.scheduler, GaussSeidelJacobiFlowSolver)
    assert loaded.scheduler.config.strategy == "7-8-32-10"
    assert loaded.transformer.config.noise_std == 0.07
    assert loaded.sampling_defaults()["denoise_strength"] == 1.4
    loaded.scheduler = FrontierFlowSolver()
    latents = loaded(1, seeds=1, guidance_scale=0.5, output_type="latent").images
    assert torch.equal(latents, pipe(1, seeds=1, output_type="latent").images)

    other = tmp_path / "mine_0.05.pth"
    torch.save(weights, other)
    assert TarFlowPipeline.from_single_file(other, dtype=torch.bfloat16).transformer.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"No strategy was published for mine_0.05.pth"):
        TarFlowPipeline.from_single_file(other, scheduler="published")
    file.write_bytes(b"nothing")
    with pytest.raises(OSError, match="cannot be read as a checkpoint of plain tensors"):
        TarFlowPipeline.from_single_file(file)
    with pytest.raises(OSError, match="there is no such file"):
        TarFlowPipeline.from_single_file(tmp_path / "none_0.1.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels must be an integer from 1"),
        ({"in_channels": "3"}, "in_channels must be an integer from 1"),
        ({"noise_std": -1.0}, "noise_std must be a number from 0"),
        ({"noise_std": math.nan}, "noise_std must be a number from 0"),
        ({"noise_std": "x"}, "noise_std must be a number from 0"),
        ({"id2label": ["cat"]}, r"id2label must be a dict of names by index, such as .0: 'cat'.; got .'cat'"),
        ({"id2label": {"x": "cat"}}, "id2label must be"),
        ({"id2label": {-1: "cat"}}, "id2label must be"),
        ({"id2label": {0: 5}}, "id2label must be"),
    ],
)
def test_what_is_told_of_a_published_file_is_checked(tmp_path, options, message):
    weights = tiny_pipeline(hidden_size=64, attention_head_dim=64).transformer.state_dict()
    write_published_file(weights, tmp_path / "mine_0.05.pth")
    with pytest.raises(ValueError, match=message):
        TarFlowPipeline.from_single_file(tmp_path / "mine_0.05.pth", **options)


def test_pickles_do_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"var": torch.zeros(1), "payload": Payload()}, tmp_path / "bad_0.05.pth")
    with pytest.raises(OSError, match="cannot be read as a checkpoint of plain tensors"):
        TarFlowPipeline.from_single_file(tmp_path / "bad_0.05.pth")


def test_a_published_file_of_another_family_names_its_class(tmp_path):
    tiny_pipeline(hidden_size=64, attention_head_dim=64).save_pretrained(tmp_path / "flow")
    (file,) = TarFlowPipeline.export_published_files(tmp_path / "flow", tmp_path)
    assert file.name == "flow_model_2_64_2_2_0.05.pth"
    assert torch.load(file, weights_only=True)["blocks.1.attn_mask"].tril().equal(torch.ones(16, 16).tril())
    with pytest.raises(ValueError, match="not a SJDAutoRegressivePipeline; load it with TarFlowPipeline"):
        SJDAutoRegressivePipeline.from_single_file(file, vq_file=file)
    other = tmp_path / "c2i_B_256.pt"
    write_published_file({"tok_embeddings.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(ValueError, match="holds a SJDLlamaGenPipeline, not a TarFlowPipeline; load it with SJDLlama"):
        TarFlowPipeline.from_single_file(other)
    with pytest.raises(ValueError, match=r"vq_file is an option of SJDLlamaGenPipeline; .* holds a TarFlowPipeline"):
        TarFlowPipeline.from_single_file(file, vq_file=file)
    write_published_file({"weight": torch.zeros(2, 2)}, other)
    with pytest.raises(ValueError, match=r"These weights are not a TarFlow's: 'blocks.0.pos_embed' is missing"):
        TarFlowPipeline.from_single_file(other, noise_std=0.1)


def test_other_folders_are_refused(toy, flow_pipe, tmp_path):
    with pytest.raises(OSError, match=r"has neither model_index.json nor config.json, so it holds no model\."):
        TarFlowPipeline.from_pretrained(tmp_path)
    (tmp_path / "flow.pth").touch()
    with pytest.raises(OSError, match="load a published file with from_single_file"):
        TarFlowPipeline.from_pretrained(tmp_path)
    flow_pipe.save_pretrained(tmp_path / "flow")
    for source in ("emoji-janus", toy_folder(toy, tmp_path)):
        with pytest.raises(ValueError, match="holds a SJDJanusPipeline, not a TarFlowPipeline; load it with SJDJanus"):
            TarFlowPipeline.from_pretrained(source)
    with pytest.raises(ValueError, match="not a SJDAutoRegressivePipeline; load it with TarFlowPipeline"):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path / "flow")
    message = "^emoji-flow holds a TarFlowPipeline, not a SJDAutoRegressivePipeline; load it with TarFlowPipeline.$"
    with pytest.raises(ValueError, match=message):
        SJDAutoRegressivePipeline.from_pretrained("emoji-flow")


def toy_folder(toy, folder):
    toy.save_pretrained(folder / "toy")
    return folder / "toy"
