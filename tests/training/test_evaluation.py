"""Scoring a run: an untrained model's pictures and the ceilings above them."""

import json

from PIL import Image
from safetensors.torch import save_file

from sjd_pipelines.training.architecture import build_config, build_model
from sjd_pipelines.training.evaluation import evaluate
from sjd_pipelines.training.transformer import AVERAGE_FILE, LOG_FILE, trained_parameters


def test_an_untrained_run_is_scored_low_and_true_pictures_high(tmp_path):
    model = build_model(build_config(), seed=1)
    save_file({name: p.detach() for name, p in trained_parameters(model).items()}, tmp_path / AVERAGE_FILE)
    (tmp_path / LOG_FILE).write_text(json.dumps({"step": 3, "images": 48, "seconds": 1.5}) + "\n")
    results = evaluate(tmp_path, per_kind=1, schedulers=("seeded-jacobi",), grid=tmp_path / "grid.png")
    assert results["training"] == {"images": 48, "steps": 3, "seconds": 1.5}
    assert results["scores"]["rendered (ceiling)"]["all"] == 1
    assert results["scores"]["seeded-jacobi, single"]["all"] == 0
    assert results["encoder_accuracy"] is None  # never trained
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.width > 128
    assert not list(tmp_path.glob("*.tmp"))
