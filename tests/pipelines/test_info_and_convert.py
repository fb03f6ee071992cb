"""`sjd info` and `sjd convert`: what they tell and write."""

import pytest
import torch
from transformers import ChameleonConfig

from sjd_pipelines import CanvasCache, SJDAutoRegressivePipeline, SJDLlamaGenPipeline, TarFlowPipeline
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.benchmark.toy_flow import toy_flow_pipeline
from sjd_pipelines.models import published_llamagen_weights, published_vq_weights, read_published_file
from sjd_pipelines.models.tarflow import FlowCache
from sjd_pipelines.pipelines.convert import convert_model, export_published
from sjd_pipelines.pipelines.info import format_info, inspect_model

from .tiny import MEMBERS


@pytest.mark.parametrize("name", MEMBERS)
def test_told_canvas_is_the_canvas(name, request, tmp_path):
    pipe = request.getfixturevalue(name)
    pipe.save_pretrained(tmp_path)
    weights = [*tmp_path.rglob("*.safetensors")]
    assert {file.stat().st_mode for file in weights} == {(tmp_path / "model_index.json").stat().st_mode}
    info = inspect_model(tmp_path)
    assert info.pipeline == type(pipe).__name__
    networks = {key: part for key, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert info.parameters == {
        key: sum(parameter.numel() for parameter in part.parameters()) for key, part in networks.items()
    }
    assert info.sampling == pipe.sampling_defaults()
    layout = pipe.image_layout(None, None)
    encoded = pipe.encode_prompt(pipe.prepare_prompts(MEMBERS[name].prompts[0]), None, True, 1, layout)
    with torch.no_grad():
        cache = CanvasCache(layout.num_tokens)
        cache.place(torch.zeros(2, 1, dtype=torch.int64), 1)
        mask = torch.ones(2, 1, 1, 1, dtype=torch.bool)
        pipe.run_transformer(encoded.embeds[:, -1:], mask, encoded.position_ids[:, -1:], cache)
    assert cache.nbytes == layout.num_tokens * info.prompt_token_bytes
    first = info.sizes[0]
    assert (first.height, first.width) == pipe.image_sizes()[0]
    assert first.tokens == layout.num_tokens
    assert first.canvas_bytes == layout.num_tokens * info.prompt_token_bytes
    assert inspect_model(tmp_path, torch.bfloat16).prompt_token_bytes * 2 == info.prompt_token_bytes


def test_full_size_lumina_needs_no_weights(tmp_path):
    words = {
        f"IMGIMG{str(code).translate(str.maketrans('0123456789', 'ABCDEFGHIJ'))}Z": 4 + code for code in range(8192)
    }
    words |= {"<eoss>": 8196, "<racm3:break>": 8197, "<reserved08706>": 8710, "<reserved08799>": 8803}
    folder = tmp_path / "Lumina-mGPT-7B-768"
    ChameleonConfig(vocabulary_map=words).save_pretrained(folder)
    info = inspect_model(folder, torch.bfloat16)
    assert info.pipeline == "SJDChameleonPipeline"
    assert info.parameters["model"] > 6.9e9
    assert (info.sizes[0].rows, info.sizes[0].columns, info.sizes[0].tokens) == (48, 48, 48 * 49 + 1)
    assert info.sizes[0].canvas_bytes == 2 * 32 * 2 * 4096 * 2 * (48 * 49 + 1)  # rows, layers, k and v, width, bytes
    text = format_info(info)
    assert "bfloat16, two rows per guided picture, plus 1.00 MiB per prompt token" in text
    assert "768     768  2353 (48 x 48)" in text


def test_nothing_to_tell(tmp_path):
    with pytest.raises(OSError, match="holds no model"):
        inspect_model(tmp_path)


def test_llamagen_there_and_back(captions, tmp_path):
    file, vq_file = tmp_path / "t2i_XL_stage1_256.pt", tmp_path / "vq_ds16_t2i.pt"
    weights, vq_weights = (
        published_llamagen_weights(captions.transformer),
        published_vq_weights(captions.vq_model, "llamagen"),
    )
    torch.save({"module": weights}, file)
    torch.save({"model": vq_weights}, vq_file)
    options = {"vq_file": vq_file, "image_size": 8, "num_attention_heads": 2}
    options |= {"text_encoder": captions.text_encoder, "tokenizer": captions.tokenizer}
    folder = convert_model(file, tmp_path / "converted", **options)
    assert sorted(path.suffix for path in folder.rglob("*") if path.stat().st_size > 10**4) == [".safetensors"] * 3
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    loaded = SJDAutoRegressivePipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded, SJDLlamaGenPipeline)
    options = {"temperature": 0, "output_type": "latent"}
    assert torch.equal(loaded("a red dog", **options).tokens, captions("a red dog", **options).tokens)

    exported, exported_vq = export_published(folder, tmp_path / "exported")
    assert (exported.name, exported_vq.name) == ("t2i_8.pt", "vq_ds2_t2i.pt")
    back = read_published_file(exported)
    assert back.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in back.items())
    assert read_published_file(exported_vq).keys() == vq_weights.keys()


def test_convert_a_transformers_folder(emu3, tmp_path):
    emu3.model.save_pretrained(tmp_path / "source")
    emu3.tokenizer.save_pretrained(tmp_path / "source")
    folder = convert_model(tmp_path / "source", tmp_path / "new" / "folder", image_area=36)
    assert (folder / "model_index.json").is_file()
    with pytest.raises(FileExistsError, match="choose a new folder"):
        convert_model(tmp_path / "source", folder)


def test_options_of_another_family_on_the_command_line(emu3, tmp_path, sjd):
    emu3.model.save_pretrained(tmp_path / "source")
    emu3.tokenizer.save_pretrained(tmp_path / "source")
    status, out, err = sjd("convert", "source", "target", "--recipe", "anole")
    message = "recipe is an option of SJDChameleonPipeline; source holds a SJDEmu3Pipeline."
    assert (status, out, err) == (2, "", f"sjd: error: cannot convert: {message}\n")
    assert not (tmp_path / "target").exists()


def test_only_a_family_of_single_files_goes_back(emu3, tmp_path, sjd):
    emu3.save_pretrained(tmp_path / "source")
    status, out, err = sjd("convert", "source", "target", "--reverse")
    message = "source holds a SJDEmu3Pipeline, whose models are not published as single files."
    assert (status, out, err) == (2, "", f"sjd: error: cannot convert: {message}\n")


def test_a_flow_there_and_back(flow_pipe, tmp_path, sjd):
    flow_pipe.save_pretrained(tmp_path / "flow")
    status, out, err = sjd("convert", "flow", "published", "--reverse")
    assert (status, out) == (2, "")
    assert "The authors' code knows heads of 64 channels only" in err
    pipe = toy_flow_pipeline(hidden_size=64, attention_head_dim=64)
    pipe.save_pretrained(tmp_path / "wide")
    status, out, err = sjd("convert", "wide", "published", "--reverse")
    file = "published/wide_model_2_64_2_2_0.05.pth"
    assert (status, out, err) == (0, f"{file}\n", "")
    status, out, err = sjd("convert", file, "again")
    assert (status, out, err) == (0, "again\n", "")
    again = TarFlowPipeline.from_pretrained(tmp_path / "again")
    weights = again.transformer.state_dict()
    assert all(torch.equal(weights[name], one) for name, one in pipe.transformer.state_dict().items())


def test_what_is_told_of_a_flow(flow_pipe, tmp_path, sjd):
    flow_pipe.save_pretrained(tmp_path / "flow")
    info = inspect_model(tmp_path / "flow", torch.bfloat16)
    assert info.parameters == {"transformer": flow_pipe.transformer.num_parameters()}
    cache = FlowCache(2, 2, 2, 15, 16, torch.bfloat16)
    assert info.cache_bytes == sum(layer.nbytes for layer in cache.layers)
    assert (info.passes, info.patches, info.classes) == (30, 16, ["cat", "dog", "red fox"])
    status, out, _ = sjd("info", "flow", "--json", "info.json")
    assert status == 0
    assert "picture:    8 x 8 pixels, 16 patches in 2 blocks" in out
    assert out.endswith("\nclasses: cat, dog, red fox\n")


def test_a_part_that_is_not_in_its_folder_is_not_sought_elsewhere(tmp_path):
    toy_pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"model": [', '"moel": ['))
    with pytest.raises(OSError, match="has no folder moel, which its model_index"):
        inspect_model(tmp_path)


@pytest.mark.parametrize("text", ['"processor": 3, "hue"', '"scheduled"'])
def test_an_index_that_was_edited_is_one_error(tmp_path, text):
    toy_pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"scheduler"', text))
    with pytest.raises(ValueError, match="can't be loaded"):
        inspect_model(tmp_path)
