"""Training of the bundled flow: its phases, a run that learns, stops and goes on as if it had not, and its folder."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sjd_pipelines import TarFlowPipeline
from sjd_pipelines.emoji.glyphs import OBJECTS
from sjd_pipelines.training import flow
from sjd_pipelines.training.bundle import RESULTS_FILE
from sjd_pipelines.training.course import Phase, schedule
from sjd_pipelines.training.flow_export import export_flow
from sjd_pipelines.training.flow_train import (
    ARCHITECTURE,
    FILES,
    PHASES,
    FlowRecipe,
    FlowTraining,
    load_trained,
    train_flow,
)

SMALL = ARCHITECTURE | {"patch_size": 8, "num_blocks": 2, "layers_per_block": 1, "hidden_size": 32}
SHORT = (Phase(32, 8, 1.0, 0.9), Phase(48, 16, 0.0, 0.9))


def recipe(folder, **options):
    return FlowRecipe(folder, **{"phases": SHORT, "log_pictures": 16, "architecture": SMALL} | options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    train_flow(recipe(folder))
    return folder


def test_rates_rise_and_fall_along_the_pictures():
    phases = (Phase(100, 10, 1.0, 0.9), Phase(200, 20, 0.5, 0.9), Phase(100, 50, 0.0, 0.9))
    rates = [schedule(phases, pictures)[1] for pictures in (0, 40, 90, 180, 280, 300, 350)]
    assert rates == pytest.approx([0.0245, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0], abs=1e-3)
    assert schedule(phases, 100)[0] is phases[1]
    assert schedule(phases, 400) is None
    assert all(phase.pictures % phase.batch_size == 0 for phase in PHASES)
    larger = FlowRecipe("run", phases=phases[:1], scale=2.5, batches=4).course
    assert larger == (Phase(250, 40, 1.0, 0.9),)


def test_training_learns(trained):
    log = [json.loads(line) for line in (trained / FILES.log).read_text().splitlines()]
    assert [entry["pictures"] for entry in log] == [16, 32, 48, 64, 80]
    assert log[-1]["step"] == 7
    assert log[-1]["probe"] < log[0]["probe"] < 0.6
    assert not list(trained.glob("*.tmp"))


def test_a_stopped_run_goes_on_where_it_was(trained, tmp_path):
    """It ends with the weights of one that was never stopped."""
    for _ in range(3):
        train_flow(recipe(tmp_path, max_steps=2))
    assert load_file(tmp_path / FILES.average).keys() == load_file(trained / FILES.average).keys()
    assert train_flow(recipe(tmp_path))["step"] == 7
    whole, parts = load_file(trained / FILES.average), load_file(tmp_path / FILES.average)
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    with pytest.raises(ValueError, match="holds a run of another architecture"):
        FlowTraining(recipe(tmp_path, architecture=ARCHITECTURE))


def test_time_ends_a_run(tmp_path):
    entry = train_flow(recipe(tmp_path, minutes=1e-9))
    assert entry == {}
    assert (tmp_path / FILES.average).exists()


def test_prior_of_a_volume_preserving_run_is_learned(tmp_path):
    train_flow(recipe(tmp_path, phases=SHORT[:1], architecture=SMALL | {"volume_preserving": True}))
    assert (load_trained(tmp_path).var - 1).abs().max() > 0.01


def test_weights_of_the_real_flow_fit_into_eight_megabytes(tmp_path):
    training = FlowTraining(recipe(tmp_path, architecture=ARCHITECTURE))
    assert training.model.num_parameters() * 4 < 8e6
    assert training.model.num_tokens >= 256


def test_evaluated_and_exported(trained, tmp_path, capsys):
    results, target = tmp_path / "scores.json", tmp_path / "emoji-flow"
    flow.main(
        [
            "evaluate",
            "--folder",
            str(trained),
            "--count",
            "3",
            "--results",
            str(results),
            "--sheet",
            str(tmp_path / "s.png"),
        ]
    )
    scores = json.loads(results.read_text())["scores"]
    assert scores["rendered"]["object"] == 1
    assert scores["drawn"]["n"] == 3
    flow.main(["export", "--folder", str(trained), "--target", str(target), "--results", str(results)])
    flow.main(["export", "--folder", str(trained), "--target", str(target)])
    assert capsys.readouterr().out.endswith(f"{target}\n")
    assert json.loads((target / RESULTS_FILE).read_text())["training"]["pictures"] == 80
    card = (target / "README.md").read_text()
    assert "Trained on 80 pictures" in card
    assert ", ".join(OBJECTS) in card.replace("\n", " ")
    assert "flow train --folder RUN`\nmakes it" in card
    assert "phases,\nin pictures:\n32 (batch 8, rates to 1), 48 (batch 16, rates to 0)." in card
    with pytest.raises(FileNotFoundError, match=r"has no results\.json yet"):
        export_flow(trained, tmp_path / "other")
    pipe = TarFlowPipeline.from_pretrained(target)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("penguin", seeds=1).images[0].size == (32, 32)
    assert pipe.sampling_defaults()["guidance_scale"] == 1.0
    assert not list(tmp_path.glob("*.tmp"))
