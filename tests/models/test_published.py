"""Reading and writing published files."""

import argparse
import os
from pathlib import Path

import pytest
import torch

from sjd_pipelines.models import image_size_of, published_names, read_published_file, write_published_file

WEIGHTS = {"norm.weight": torch.arange(3.0)}


@pytest.mark.parametrize(
    "content",
    [
        {"model": WEIGHTS, "optimizer": {"step": 3}, "args": argparse.Namespace(gpt_model="GPT-XL")},
        {"module": WEIGHTS},
        {"state_dict": WEIGHTS},
        WEIGHTS,
    ],
)
def test_every_wrapper(content, tmp_path):
    file = tmp_path / "c2i_B_256.pt"
    torch.save(content, file)
    weights = read_published_file(file)
    assert list(weights) == ["norm.weight"]
    assert torch.equal(weights["norm.weight"], WEIGHTS["norm.weight"])


class Payload:
    def __reduce__(self):
        return os.mkdir, ("should-not-exist",)


def test_other_pickles_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.pt"
    torch.save({"model": WEIGHTS, "extra": Payload()}, file)
    with pytest.raises(OSError, match="cannot be read as a checkpoint of plain tensors"):
        read_published_file(file)
    assert not Path("should-not-exist").exists()


def test_damaged_and_foreign_files(tmp_path):
    file = tmp_path / "model.pt"
    write_published_file(WEIGHTS, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(OSError, match="cannot be read"):
        read_published_file(file)
    write_published_file(WEIGHTS, file)
    whole = file.read_bytes()
    end = whole.rindex(b"PK\x06\x07")  # how many disks the archive is on
    file.write_bytes(whole[: end + 16] + b"\x07" + whole[end + 17 :])
    with pytest.raises(OSError, match="cannot be read as a checkpoint of plain tensors: BadZipFile"):
        published_names(file)
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="holds no state dict"):
        read_published_file(file)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float8_e4m3fn, torch.complex64])
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path, dtype):
    file = tmp_path / "model.pt"
    torch.save({"norm.weight": torch.ones(3, dtype=dtype), "freqs_cis": torch.ones(3, dtype=torch.complex64)}, file)
    with pytest.raises(ValueError, match=r"model\.pt holds norm\.weight as \w+, and nothing says which number"):
        read_published_file(file)


def test_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "model.pt"
    with pytest.raises(AttributeError):
        write_published_file({"function": lambda: None}, file)
    assert list(file.parent.iterdir()) == []
    write_published_file(WEIGHTS, file)
    assert torch.equal(read_published_file(file)["norm.weight"], WEIGHTS["norm.weight"])


def test_picture_size_is_read_from_the_name():
    assert image_size_of(Path("t2i_XL_stage2_512.pt")) == 512
    assert image_size_of(Path("c2i_3B_384.pt")) == 384
    assert image_size_of(Path("PAR-16x_128.pt"), ["spe_tok_embeddings.special_embeddings.weight"]) == 128  # exported
    assert image_size_of(Path("PAR-3B-16x.pt"), ["spe_tok_embeddings.special_embeddings.weight"]) == 384
    with pytest.raises(ValueError, match="pass image_size="):
        image_size_of(Path("model.pt"))
