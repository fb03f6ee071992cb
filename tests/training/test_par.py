"""Training of the bundled class-conditional model: its orders, a run that learns, stops and goes on, its folder."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sjd_pipelines import (
    ParallelGroupsScheduler,
    SeededJacobiScheduler,
    SJDAutoRegressivePipeline,
    SJDLlamaGenPipeline,
)
from sjd_pipelines.cli import main as cli
from sjd_pipelines.emoji.glyphs import OBJECTS
from sjd_pipelines.models import render_codes, render_janus_codes
from sjd_pipelines.training import par
from sjd_pipelines.training.course import Phase
from sjd_pipelines.training.par_compare import compare_orders
from sjd_pipelines.training.par_export import draw_classes, pixel_decoder, share_right, trained_pipeline, true_pictures
from sjd_pipelines.training.par_train import (
    ARCHITECTURE,
    FILES,
    PHASES,
    ParRecipe,
    TaughtSequence,
    build_model,
    class_batch,
    train_par,
)

SMALL = ARCHITECTURE | {"num_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
SHORT = (Phase(32, 8, 1.0, 0.9), Phase(32, 16, 0.0, 0.9))


def recipe(folder, **options):
    return ParRecipe(folder, **{"phases": SHORT, "log_pictures": 16, "architecture": SMALL} | options)


@pytest.fixture(scope="module", params=["par", "raster"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    train_par(recipe(folder, order=request.param, groups=16))
    return folder


def test_training_learns(trained):
    log = [json.loads(line) for line in (trained / FILES.log).read_text().splitlines()]
    assert [entry["pictures"] for entry in log] == [16, 32, 48, 64]
    assert log[-1]["probe"] < log[0]["probe"] < 7.63  # nats of a uniform law


def test_a_stopped_run_goes_on_where_it_was(trained, tmp_path):
    order = "par" if trained.name.startswith("par") else "raster"
    for _ in range(2):
        train_par(recipe(tmp_path, order=order, groups=16, max_steps=2))
    assert train_par(recipe(tmp_path, order=order, groups=16))["step"] == 6
    whole, parts = load_file(trained / FILES.average), load_file(tmp_path / FILES.average)
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


@torch.no_grad()
def test_training_has_the_laws_of_decoding(trained):
    """The teacher-forced pass of the trainer is that of the pipeline, which decoding is held against."""
    pipe = trained_pipeline(trained)
    taught = TaughtSequence(pipe.transformer)
    tokens = class_batch(2, 5, 0.0).tokens
    labels = torch.tensor([3, 7])
    logits = taught.logits(labels, tokens[:, taught.order])
    cut = tokens.clone()
    last = taught.order[-1]
    cut[:, last] = (cut[:, last] + 1) % 2048  # the last token made is seen by none
    assert torch.equal(taught.logits(labels, cut[:, taught.order]), logits)
    first = tokens.clone()
    first[:, taught.order[0]] = (first[:, taught.order[0]] + 1) % 2048
    moved = (taught.logits(labels, first[:, taught.order]) != logits).any(-1)[0]
    assert not moved[0]
    assert moved[1:].all()


def test_order_and_classes_are_checked(tmp_path):
    with pytest.raises(ValueError, match="order must be one of raster, par; got 'spiral'"):
        recipe(tmp_path, order="spiral")
    labels = class_batch(64, 0, 0.5).labels
    assert (labels == len(OBJECTS)).sum() in range(20, 45)
    assert class_batch(64, 0, 0.0).labels.max() < len(OBJECTS)
    assert all(phase.pictures % phase.batch_size == 0 for phase in PHASES)


def test_weights_of_the_real_model_fit_into_eight_megabytes():
    assert build_model(ARCHITECTURE | {"parallel_tokens": 16}, 0).num_parameters() * 2 < 8e6


@torch.no_grad()
def test_pixels_are_those_of_the_bundled_model():
    grid = torch.randint(2048, (1, 16, 16), generator=torch.Generator().manual_seed(0))
    janus = SJDAutoRegressivePipeline.from_pretrained().model.model.vqmodel
    assert torch.allclose(render_codes(pixel_decoder(), grid), render_janus_codes(janus, grid), atol=1e-4)


def test_judge_reads_true_pictures(trained):
    pictures = true_pictures(trained_pipeline(trained), 8, seed=0)
    assert share_right(pictures) == 1
    assert share_right(pictures.flip(0)) == 0


def test_compared_evaluated_and_exported(trained, tmp_path, capsys):
    results, target = tmp_path / "scores.json", tmp_path / "emoji-par"
    options = ["--folder", str(trained), "--results", str(results)]
    par.main(["evaluate", "--count", "2", "--sheet", str(tmp_path / "sheet.png"), *options])
    assert json.loads(results.read_text())["scores"]["true tokens"] == {"n": 2, "object": 1.0}
    par.main(["export", "--target", str(target), *options])
    par.main(["export", "--target", str(target), *options[:2]])
    assert capsys.readouterr().out.endswith(f"{target}\n")
    card = (target / "README.md").read_text()
    assert "Trained on 64 pictures" in card
    assert ", ".join(OBJECTS) in card.replace("\n", " ")
    pipe = SJDLlamaGenPipeline.from_pretrained(target)
    pipe.set_progress_bar_config(disable=True)
    parallel = "--order par" in card
    assert isinstance(pipe.scheduler, ParallelGroupsScheduler if parallel else SeededJacobiScheduler)
    output = pipe("penguin", seeds=1, output_type="latent")
    assert output.statistics.forward_passes[0] in ([31] if parallel else range(2, 257))
    assert draw_classes(pipe, 1, 0, {}).shape == (1, 3, 128, 128)
    with pytest.raises(ValueError, match="unicorn"):
        pipe("unicorn")
    assert not list(tmp_path.glob("*.tmp"))
    capsys.readouterr()
    scheduler = "par" if parallel else "seeded-jacobi"
    options = ["--prompts", "1", "--repeats", "1", "--windows", "16", "--fidelity", "--quiet"]
    assert cli(["benchmark", "--model", str(target), "--schedulers", scheduler, *options]) == 0
    assert scheduler in capsys.readouterr().out


def test_orders_side_by_side(trained):
    comparison = compare_orders([trained], count=1, timed=1)
    passes = [row["passes"] for row in comparison["rows"]]
    assert passes == sorted(passes, reverse=True)
    assert passes[0] == (31 if trained.name.startswith("par") else 256)
    assert comparison["rows"][0]["fewer"] == 1
