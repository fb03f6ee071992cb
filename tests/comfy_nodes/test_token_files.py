"""Tokens saved and loaded, and files that hold none; pictures beside each other with their captions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture
def output(server):
    return Path(server.models_dir).parent / "output"


@pytest.fixture
def drawn(run, toy):
    return run("SJDSampler", model=toy, prompt="a red dog", preview_seconds=0, batch_size=2)


def test_saved_tokens_are_loaded(nodes, run, toy, drawn, output):
    tokens, _ = drawn
    for _ in range(2):
        run("SJDSaveTokens", tokens=tokens, filename_prefix="kept/dog")
    names = {"kept/dog_00001_.sjd.safetensors [output]", "kept/dog_00002_.sjd.safetensors [output]"}
    loader = nodes["SJDLoadTokens"]
    options = loader.define_schema().inputs[1].options
    assert set(options) == names
    (again,) = run("SJDLoadTokens", model=toy, file=options[0])
    assert torch.equal(again.ids, tokens.ids)
    assert again.layout == tokens.layout
    assert torch.equal(*(run("SJDDecodeTokens", model=toy, tokens=one)[0] for one in (again, tokens)))
    assert loader.validate_inputs(options[0]) is True
    assert loader.validate_inputs(None) is True
    with pytest.raises(ValueError, match=r"^No tokens are saved as 'gone'\."):
        loader.validate_inputs("gone")
    before = loader.fingerprint_inputs(file=options[0])
    (output / "kept" / "dog_00002_.sjd.safetensors").touch()
    (output / "kept" / "dog_00001_.sjd.safetensors").touch()
    assert loader.fingerprint_inputs(file=options[0]) != before


def test_files_that_hold_no_tokens_of_the_model_are_refused(run, toy, bundled, drawn, output):
    tokens, _ = drawn
    run("SJDSaveTokens", tokens=tokens, filename_prefix="of-toy")
    with pytest.raises(ValueError, match="connect the model that drew them"):
        run("SJDLoadTokens", model=bundled, file="of-toy_00001_.sjd.safetensors [output]")
    about = {"codebook": toy.codebook.name, "height": "16", "width": "16"}
    good = {"ids": tokens.ids.contiguous(), "codebook": toy.codebook.sample}
    bad = {
        "cut": (b"cut off", None, "was not written by SJD Save Tokens"),
        "foreign": ({"ids": tokens.ids.contiguous()}, {}, "was not written by SJD Save Tokens"),
        "short": (good | {"ids": tokens.ids[:, :9].contiguous()}, about, "holds no pictures of 16 x 16"),
        "floats": (good | {"ids": tokens.ids.float()}, about, "holds no pictures of 16 x 16"),
        "large": (good | {"ids": tokens.ids + 64}, about, "holds tokens that the model does not have"),
    }
    for name, (content, metadata, message) in bad.items():
        file = output / f"{name}.sjd.safetensors"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            save_file(content, file, metadata=metadata)
        with pytest.raises(ValueError, match=message):
            run("SJDLoadTokens", model=toy, file=f"{file.name} [output]")


def test_pictures_beside_each_other_have_captions(run, toy, drawn):
    tokens, report = drawn
    (image,) = run("SJDDecodeTokens", model=toy, tokens=tokens)
    values = {f"image_{number}": image for number in (1, 2, 4)} | {f"report_{number}": report for number in (1, 2, 4)}
    (sheet,) = run("SJDPictureComparison", **values)
    assert sheet.shape[2] == 2 * 256 + 4
    assert sheet.shape[1] > 2 * 256
    first = Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy()).resize((256, 256), Image.BICUBIC)
    assert np.array_equal((sheet[0, :256, :256] * 255).round().to(torch.uint8).numpy(), np.asarray(first))
    caption = sheet[0, 256:272, :256]
    assert caption.min() < 0.5  # ink
    with pytest.raises(ValueError, match="Picture 2 needs both image_2 and report_2"):
        run("SJDPictureComparison", image_1=image, report_1=report, image_2=image)
    with pytest.raises(ValueError, match="must all be of one size"):
        run("SJDPictureComparison", **values | {"image_4": image[:, :8]})
