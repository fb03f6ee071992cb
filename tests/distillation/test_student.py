"""Students: what is trained, that training learns, stops and resumes, and what is exported."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sjd_pipelines import SeededJacobiScheduler, SJDAutoRegressivePipeline
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.distillation.__main__ import build_parser, main
from sjd_pipelines.distillation.export import export_student
from sjd_pipelines.distillation.objective import Objective
from sjd_pipelines.distillation.student import (
    NAME,
    Form,
    layers_of_image_tokens,
    load_form,
    merge,
    save_form,
    student_pipeline,
    trained_weights,
)
from sjd_pipelines.distillation.train import StudentRecipe, train_student
from sjd_pipelines.distillation.trajectories import load
from sjd_pipelines.learning.timed import run_files

from ..pipelines.tiny import MEMBERS

TINY = {"batch_size": 2, "windows": 6, "rank": 8, "alpha": 16.0, "warmup": 2, "threads": 1, "probe_pictures": 1}


def recipe_for(tmp_path, drawn, **options):
    return StudentRecipe(tmp_path / "run", trajectories=str(drawn), decay_minutes=0, log_every=5, **TINY | options)


@pytest.mark.parametrize(
    ("name", "component", "inside", "outside"),
    [
        ("janus", "model", "model.language_model.layers.0.self_attn.q_proj", "model.vqmodel.quantize.embedding"),
        ("captions", "transformer", "layers.1.attention.to_qkv", "caption_embedding.up"),
        ("emu3", "model", "model.text_model.layers.0.mlp.down_proj", None),
    ],
)
def test_what_is_trained_is_what_image_tokens_go_through(name, component, inside, outside):
    pipe = MEMBERS[name].make()
    layers = layers_of_image_tokens(pipe, pipe.prepare_prompts(MEMBERS[name].prompts[0])[0])
    assert list(layers) == [component]
    assert inside in layers[component]
    assert outside is None or outside not in layers[component]


@pytest.mark.parametrize("rank", [0, 4])
def test_merged_weights_are_the_trained_ones(teacher, rank):
    form = Form(rank=rank, alpha=6.0)
    with torch.random.fork_rng(devices=[]):
        weights = trained_weights(teacher, form, "a red dog")
        before = teacher("a dog", seeds=1, output_type="latent").tokens
        with torch.no_grad():
            for parameter in weights.values():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    trained = teacher("a dog", seeds=1, output_type="latent").tokens
    assert not torch.equal(trained, before)
    fresh = toy_pipeline(side=4, codebook_size=16, logit_scale=3.0)
    merge(fresh, {name: parameter.detach() for name, parameter in weights.items()}, form)
    assert torch.equal(fresh("a dog", seeds=1, output_type="latent").tokens, trained)


def test_training_learns_stops_and_resumes(teacher, drawn, tmp_path):
    teacher.save_pretrained(tmp_path / "teacher")
    recipe = recipe_for(tmp_path, drawn, model=str(tmp_path / "teacher"), adam_rate=5e-3, max_steps=15)
    state = torch.random.get_rng_state()
    first = train_student(recipe)
    assert torch.equal(torch.random.get_rng_state(), state)
    second = train_student(recipe)
    assert (first["step"], second["step"]) == (15, 30)
    log = [json.loads(line) for line in run_files(tmp_path / "run", NAME)[-1].read_text().splitlines()]
    losses = [entry["consistency"] for entry in log if "consistency" in entry]
    assert losses[-1] < 0.6 * losses[0]
    assert 0 < log[-2]["teacher_kl"] < 1
    assert second["probe_passes_0"] <= second["probe_teacher_passes_0"]
    assert second["probe_exit16_0"] == 1  # by then all of 16 tokens are

    student = student_pipeline(tmp_path / "run")
    part = load(drawn)[0]
    options = {"guidance_scale": 2.0, "scheduler": SeededJacobiScheduler(window=5), "output_type": "latent"}
    drawn_by_student = student(part.prompts, seeds=part.seeds, **options)
    assert main(["export", "--folder", str(tmp_path / "run"), "--target", str(tmp_path / "whole")]) == 0
    whole = SJDAutoRegressivePipeline.from_pretrained(tmp_path / "whole")
    assert torch.equal(whole(part.prompts, seeds=part.seeds, **options).tokens, drawn_by_student.tokens)

    command = ["export", "--folder", str(tmp_path / "run"), "--target", str(tmp_path / "adapter"), "--adapter"]
    assert main(command) == 0
    assert not (tmp_path / "adapter" / "model_index.json").exists()
    adapted = SJDAutoRegressivePipeline.from_pretrained(tmp_path / "adapter").model.state_dict()
    for name, weight in whole.model.state_dict().items():
        assert torch.allclose(adapted[name], weight, atol=1e-3), name  # it is stored in half precision
    weights = tmp_path / "teacher" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\x80?")
    with pytest.raises(ValueError, match="is an adapter for other weights than"):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path / "adapter")


def test_an_adapter_of_what_is_none_is_refused(teacher, drawn, tmp_path):
    train_student(recipe_for(tmp_path, drawn, rank=0, max_steps=1), teacher)
    with pytest.raises(ValueError, match="has trained all weights of its model; export it as a whole"):
        export_student(tmp_path / "run", tmp_path / "adapter", adapter=True)
    with pytest.raises(ValueError, match="Only an adapter can be scaled; give --adapter too"):
        export_student(tmp_path / "run", tmp_path / "adapter", scale=0.5)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), 11])
def test_scales_out_of_range_are_refused(tmp_path, scale):
    with pytest.raises(ValueError, match="scale must be a number above 0, at most 10, got"):
        export_student(tmp_path / "run", tmp_path / "adapter", adapter=True, scale=scale)


def test_an_export_takes_the_place_of_nothing(teacher, drawn, tmp_path):
    teacher.save_pretrained(tmp_path / "teacher")
    recipe = recipe_for(tmp_path, drawn, model=str(tmp_path / "teacher"), max_steps=1)
    train_student(recipe)
    for adapter in (True, False):
        with pytest.raises(OSError, match="teacher exists; choose a new folder"):
            export_student(tmp_path / "run", tmp_path / "teacher", adapter)
    average = run_files(tmp_path / "run", NAME)[0]
    average.write_bytes(average.read_bytes()[:-9])
    for adapter in (True, False):
        with pytest.raises(OSError, match=r"student\.safetensors is not as a run saves it"):
            export_student(tmp_path / "run", tmp_path / "new", adapter)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trajectories": "nowhere"}, "nowhere holds no trajectories; record some with `trajectories`"),
        ({"consistency": 0.0, "label": 0.0, "reverse": 0.0}, "One of consistency, choice, label and reverse must be"),
        ({"device": "meta"}, "device must be one of this machine's, cpu"),
        ({"folder": Path("half/student.json")}, "half/student.json is not a folder; choose another one"),
        ({"trajectories": ","}, "trajectories must name folders that `trajectories` has written"),
        ({"slots": 6}, "slots must be at most 5, the window they were recorded with, got 6"),
        ({"rank": 100000}, r"rank must be at most \d+, that of the model's largest linear layer, got 100000"),
        ({"start": "nowhere"}, "nowhere/student.json does not exist: no run has saved it"),
        ({"start": "half"}, "half/student.safetensors does not exist: no run has saved it"),
        ({"start": "whole"}, "whole holds a run of .*'rank': 0.*; a run that begins with it must be like it"),
    ],
)
def test_bad_recipes_are_refused(teacher, drawn, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    save_form(Path("half"), Form("", TINY["rank"], TINY["alpha"]))
    save_form(Path("whole"), Form("", 0))
    with pytest.raises((ValueError, OSError), match=message):
        train_student(replace(recipe_for(tmp_path, drawn), **options), teacher)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", [{"side": 5}, {"side": 4, "codebook_size": 8}])
def test_trajectories_of_another_model_are_refused(drawn, tmp_path, other):
    with pytest.raises(ValueError, match=r"are of another model: they have 16 tokens, up to 1\d, and the teacher"):
        train_student(recipe_for(tmp_path, drawn), toy_pipeline(**{"codebook_size": 16} | other))
    assert not (tmp_path / "run").exists()


def test_what_is_measured_is_not_learned_from(teacher, drawn, tmp_path):
    (drawn / "00001.safetensors").unlink()
    with pytest.raises(ValueError, match="holds 2 pictures, and the last 2 are measured and not learned from"):
        train_student(recipe_for(tmp_path, drawn, probe_pictures=2), teacher)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_is_saved_and_goes_on(teacher, drawn, tmp_path, monkeypatch):
    recipe = recipe_for(tmp_path, drawn, max_steps=50)
    loss, steps = Objective.loss, []

    def interrupted(*arguments):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(Objective, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_student(recipe, teacher)
    assert len(steps) == 3
    fresh = toy_pipeline(side=4, codebook_size=16, logit_scale=3.0)
    assert train_student(replace(recipe, max_steps=2), fresh)["step"] == 5


def test_a_run_keeps_its_form(teacher, drawn, tmp_path):
    recipe = recipe_for(tmp_path, drawn, max_steps=1)
    train_student(recipe, teacher)
    assert load_form(tmp_path / "run") == Form("", 8, 16.0)
    with pytest.raises(ValueError, match="choose another folder"):
        train_student(replace(recipe, rank=0), teacher)


def test_a_run_begins_with_another(teacher, drawn, tmp_path):
    recipe = recipe_for(tmp_path, drawn, max_steps=5, slots=1)
    train_student(recipe, teacher)
    wanted = load_file(run_files(tmp_path / "run", NAME)[0])
    fresh = toy_pipeline(side=4, codebook_size=16, logit_scale=3.0)
    later = replace(recipe, folder=tmp_path / "later", start=str(tmp_path / "run"), adam_rate=0.0, max_steps=1)
    assert train_student(later, fresh)["step"] == 1
    found = load_file(run_files(tmp_path / "later", NAME)[0])
    assert any(weight.abs().max() > 0 for name, weight in wanted.items() if ".lora_B." in name)
    for name, weight in wanted.items():
        assert torch.equal(found[name], weight), name
    with pytest.raises(ValueError, match="a run that begins with it must be like it"):
        train_student(replace(later, folder=tmp_path / "new", rank=4), fresh)


def test_the_commands_work_on_another_family(tmp_path, capsys):
    """LlamaGen, by the command line alone: recorded, distilled with all weights, and exported."""
    MEMBERS["classes"].make().save_pretrained(tmp_path / "teacher")
    (tmp_path / "classes.txt").write_text("0\n3\n4\n")
    told = ["--model", str(tmp_path / "teacher")]
    recording = [
        "trajectories",
        *told,
        "--prompts",
        str(tmp_path / "classes.txt"),
        "--folder",
        str(tmp_path / "drawn"),
    ]
    assert main([*recording, "--window", "4", "--guidance-scale", "2", "--top-k", "0"]) == 0
    training = ["train", *told, "--folder", str(tmp_path / "run"), "--trajectories", str(tmp_path / "drawn")]
    learned = ["--target", "tokens", "--probe-pictures", "1"]
    assert main([*training, "--rank", "0", "--max-steps", "2", "--threads", "1", *learned]) == 0
    assert main(["export", "--folder", str(tmp_path / "run"), "--target", str(tmp_path / "student")]) == 0
    student = SJDAutoRegressivePipeline.from_pretrained(tmp_path / "student")
    assert student("3", output_type="latent", seeds=1).tokens.shape == (1, 16)
    capsys.readouterr()
    assert main([*recording, "--window", "5"]) == 1
    assert "was recorded with another window" in capsys.readouterr().err


def test_the_command_takes_every_field_of_the_recipe(tmp_path):
    options = vars(build_parser().parse_args(["train", "--folder", str(tmp_path), "--windows", "7", "--bfloat16"]))
    assert options.pop("command") == "train"
    assert StudentRecipe(**options) == StudentRecipe(tmp_path, windows=7, bfloat16=True)


@pytest.mark.parametrize("place", ["nowhere:judge", "json:nothing", ":"])
def test_a_judge_that_is_not_there_is_refused(tmp_path, place, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["trajectories", "--folder", "a", "--prompts", "b", "--judge", place])
    assert "is no function of an importable module" in capsys.readouterr().err


def test_under_autocast_the_teacher_stays_the_teacher(teacher, drawn, tmp_path):
    """Weights that autocast has copied for the teacher's pass must not serve in the student's."""
    recipe = recipe_for(tmp_path, drawn, adam_rate=2e-2, max_steps=5, bfloat16=True)
    train_student(recipe, teacher)
    entries = [json.loads(line) for line in run_files(tmp_path / "run", NAME)[-1].read_text().splitlines()]
    assert entries[0]["teacher_kl"] > 0.01
