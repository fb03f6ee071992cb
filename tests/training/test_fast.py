"""`emoji-fast`: what is measured of students, summed up, held against what was promised, and written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sjd_pipelines import SJDAutoRegressivePipeline
from sjd_pipelines.distillation.export import export_student
from sjd_pipelines.distillation.student import NAME, Form, save_form
from sjd_pipelines.emoji.codes import scene_tokens
from sjd_pipelines.emoji.scenes import KINDS, Placement, Scene
from sjd_pipelines.learning.timed import run_files
from sjd_pipelines.training.__main__ import main
from sjd_pipelines.training.fast_evaluation import (
    EXITS,
    OTHER,
    PARTS,
    QUANTITIES,
    REVISED,
    SAMPLINGS,
    SEEDED,
    TEACHER,
    Evaluation,
    grounds_and_places,
)
from sjd_pipelines.training.fast_export import distance, summarise

QUERIES = "model.model.language_model.layers.0.self_attn.q_proj"


@pytest.fixture
def run(tmp_path):
    """A distillation that has changed next to nothing."""
    folder = tmp_path / "run"
    save_form(folder, Form(rank=2, alpha=2.0))
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"{QUERIES}.lora_A.default.weight": torch.randn(2, 256, generator=generator),
        f"{QUERIES}.lora_B.default.weight": torch.randn(256, 2, generator=generator) * 0.01,
    }
    average, _, log = run_files(folder, NAME)
    save_file(weights, average)
    log.write_text(json.dumps({"step": 7, "images": 56, "seconds": 90.0, "machine": "a test"}) + "\n")
    return folder


def write_figures(folder: Path, fewer: float = 2.5) -> None:
    """As `fast-evaluate` does, of a teacher, of a student that needs fewer passes, and of another one."""
    laws = {"kl": 0.01, "entropy": 0.48, "teacher_entropy": 0.5}
    passes = {TEACHER: [70, 78], "adapter": [70 / fewer, 78 / fewer], "other": [50, 50]}
    exits = {str(k): {"passes": 9.0 * k, "right": 0.5, "agreement": 0.75} for k in EXITS}
    drawn = {"right": [1, 1, 1, 0]} | {name: [0.5, 1.0, 1.5, 2.0] for name in QUANTITIES}
    figures = {
        "laws": {name: {"defaults": laws} for name in ("adapter", "other")},
        "passes": {n: {f"{d}, {s}": p for d in SEEDED for s in SAMPLINGS} for n, p in passes.items()},
        "revised": {n: {f"{d}, {s}": p for d in REVISED for s in SAMPLINGS} for n, p in passes.items()},
        "exits": dict.fromkeys((TEACHER, "adapter"), exits),
        "pictures": {
            TEACHER: {kind + suffix: drawn for kind in KINDS for suffix in ("", OTHER)},
            "adapter": {kind: drawn | {"right": [1, 1, 1, 1]} for kind in KINDS},
            "other": dict.fromkeys(KINDS, drawn),
        },
    }
    folder.mkdir()
    for part in PARTS:
        (folder / f"{part}.json").write_text(json.dumps({"figures": figures[part]}))


def test_grounds_and_places_are_read_from_tokens():
    scene, shading = Scene(("dog",), "blue"), torch.full((16, 16), 2.0)
    shading[:, 8:] = 4
    left, right = (scene_tokens(scene, [Placement(0, 3, column, 10)], shading.numpy()) for column in (1, 5))
    empty = scene_tokens(scene, [], torch.full((16, 16), 1.0).numpy())
    level, unevenness, row, column, ink = grounds_and_places(torch.from_numpy(left)[None].repeat(2, 1))[:, 0]
    assert (2 < level < 4, 0.9 < unevenness <= 1) == (True, True)
    moved = grounds_and_places(torch.from_numpy(right)[None])[:, 0]
    assert (moved[3] - column, moved[2], moved[4]) == (pytest.approx(4), pytest.approx(row), pytest.approx(ink))
    assert grounds_and_places(torch.from_numpy(empty)[None])[:, 0].tolist() == [1, 0, 7.5, 7.5, 0]


def test_prompts_are_of_the_kinds_that_are_asked_for(tmp_path):
    file, other = tmp_path / "prompts.jsonl", tmp_path / "other.jsonl"
    assert main(["fast-prompts", "--file", str(file), "--count", "40", "--mix", "0", "0.5", "0.5", "--plain"]) == 0
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    scenes = [Scene(tuple(e["scene"]["objects"]), e["scene"]["background"], e["scene"]["relation"]) for e in entries]
    assert ({scene.kind for scene in scenes}, len(entries)) == ({"count", "relation"}, 40)
    assert not any(scene.held_out for scene in scenes)
    assert all(entry["prompt"].endswith(" background") for entry in entries)
    main(["fast-prompts", "--file", str(other), "--count", "40"])
    assert {len(json.loads(line)["scene"]["objects"]) for line in other.read_text().splitlines()} == {1, 2, 3}


@pytest.mark.parametrize("mix", [("1", "1", "1"), ("1.5", "-0.5", "0"), ("nan", "0", "0")])
def test_shares_of_kinds_that_do_not_sum_to_1_are_refused(tmp_path, mix, capsys):
    assert main(["fast-prompts", "--file", str(tmp_path / "prompts.jsonl"), "--mix", *mix]) == 1
    assert "mix must be 3 shares with the sum 1" in capsys.readouterr().err
    assert main(["fast-prompts", "--file", str(tmp_path / "prompts.jsonl"), "--count", "0"]) == 1
    assert "count must be" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_distances_of_samples():
    assert distance([1, 2, 3], [3, 1, 2]) == 0
    assert distance([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5
    assert distance([1, 2], [3, 4, 5]) == 1


def test_figures_are_held_against_the_promises(tmp_path):
    write_figures(tmp_path / "figures")
    results = summarise(tmp_path / "figures", "adapter")
    assert [row["held"] for row in results["gates"]] == [True] * 14
    assert results["gates"][0]["value"] == pytest.approx(2.5)
    assert results["judge"]["single"] == {"n": 4, "teacher": 0.75, "teacher_other_seeds": 0.75, "student": 1.0}
    assert results["gates"][6]["value"] == -25
    assert [row["held"] for row in results["goals"]] == [True, True, False, True]  # 256 tokens in 29.6 passes
    assert [row["model"] for row in results["others"]] == ["other"]
    assert results["others"][0]["temperature 0"] == pytest.approx(74 / 50)
    assert results["others"][0]["right"] == 0.75
    (tmp_path / "figures" / "exits.json").unlink()
    assert summarise(tmp_path / "figures", "adapter")["exits"] == {TEACHER: {}, "adapter": {}}
    (tmp_path / "figures" / "laws.json").unlink()
    with pytest.raises(ValueError, match="has no laws of adapter; measure it with fast-evaluate"):
        summarise(tmp_path / "figures", "adapter")


def test_two_points_of_a_hundred_are_within_two(tmp_path):
    write_figures(tmp_path / "figures")
    file = tmp_path / "figures" / "pictures.json"
    kept = json.loads(file.read_text())
    kept["figures"][TEACHER]["single"]["right"] = [1] * 200
    for right, held in ((196, True), (195, False)):
        kept["figures"]["adapter"]["single"]["right"] = [1] * right + [0] * (200 - right)
        file.write_text(json.dumps(kept))
        gate = summarise(tmp_path / "figures", "adapter")["gates"][6]
        assert (gate["what"], gate["held"]) == ("points behind the teacher, single", held)


def test_a_promise_that_is_not_held_is_told(run, tmp_path, capsys):
    export_student(run, tmp_path / "adapter", adapter=True, scale=0.75)
    write_figures(tmp_path / "figures", fewer=1.2)
    target = tmp_path / "emoji-fast"
    told = [
        "--adapter",
        str(tmp_path / "adapter"),
        "--runs",
        str(run),
        str(run),
        "--figures",
        str(tmp_path / "figures"),
    ]
    told += ["--target", str(target), "--options=--windows 9"]
    assert main(["fast-export", *told]) == 1
    assert "Give the options of each run: there are 2 runs, and 1 options." in capsys.readouterr().err
    main(["fast-export", *told, "--options=--slots 8"])
    assert capsys.readouterr().out == f"{target}\n"
    card = (target / "README.md").read_text()
    assert "| times fewer passes, defaults, window 16 | 1.2 | at least 1.3 | **not held** |" in card
    assert "--folder RUN1 --windows 9\n" in card
    assert "--folder RUN2 --start RUN1 --slots 8\n" in card
    assert "export --folder RUN2 " in card
    assert "--adapter --scale 0.75\n" in card
    assert "Rank 2; 7 steps over 56 pictures, 2 minutes on a test, then 7 steps" in card
    assert "**Other students**" in card
    names = {"adapter_config.json", "adapter_model.safetensors", "base.json", "README.md", "results.json"}
    assert {file.name for file in target.iterdir()} == names
    assert json.loads((target / "results.json").read_text())["training"]["runs"][1]["step"] == 7
    config = json.loads((target / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["lora_alpha"]) == ("emoji-janus", 1.5)


def test_a_student_is_measured_beside_its_teacher(run, tmp_path, capsys):
    export_student(run, tmp_path / "adapter", adapter=True)
    options = ["fast-evaluate", "--folder", str(tmp_path / "figures"), "--models", str(tmp_path / "adapter")]
    options += ["--pictures", "1", "--per-kind", "1", "--only", "laws"]
    main(options)
    kept = json.loads((tmp_path / "figures" / "laws.json").read_text())
    found = kept["figures"]["adapter"]["defaults"]
    assert 0 < found["kl"] < 0.1
    assert found["entropy"] == pytest.approx(found["teacher_entropy"], rel=0.3)
    assert kept["weights"][TEACHER].keys() == {"model.safetensors"}
    capsys.readouterr()
    main(options)
    assert capsys.readouterr().out == ""  # nothing is left to measure
    with pytest.raises(ValueError, match="was measured with"):
        Evaluation(tmp_path / "figures", [str(tmp_path / "adapter")], pictures=2, per_kind=1, only=["laws"]).run()
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert main(options) == 1
    assert "has figures of other weights of adapter; choose another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_all_parts_are_measured(run, tmp_path):
    export_student(run, tmp_path / "adapter", adapter=True)
    Evaluation(tmp_path / "figures", [str(tmp_path / "adapter")], pictures=1, per_kind=1).run()
    results = summarise(tmp_path / "figures", "adapter")
    exits = results["exits"][TEACHER]
    assert exits["1"]["passes"] < exits["8"]["passes"]
    assert exits["1"]["agreement"] < exits["8"]["agreement"]
    rows = {(row["decoder"], row["sampling"]): row["teacher"] for row in results["passes"]}
    assert rows["revised-jacobi, window 63", "defaults"] < rows["seeded-jacobi, window 32", "defaults"] < 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["a/x", "b/x"]}, "Models must have names of their own"),
        ({"models": ["a/teacher"]}, "none that is teacher"),
        ({"only": ["laws", "speed"]}, "There is no part speed; parts are laws, passes"),
        ({"pictures": 0}, "pictures must be an integer of at least 1, got 0"),
        ({"per_kind": -1}, "per_kind must be an integer of at least 1, got -1"),
    ],
)
def test_what_can_not_be_measured_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(tmp_path / "figures", **options)


@pytest.mark.parametrize(
    "text", ['{"figures": []}', '{"weights": {"teacher": 1}}', '{"figures": {"teacher": []}}', "{"]
)
def test_damaged_figures_are_named(tmp_path, text, capsys):
    (tmp_path / "laws.json").write_text(text)
    assert main(["fast-evaluate", "--folder", str(tmp_path), "--only", "laws"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'laws.json'} is not ")


def test_students_that_are_not_there_are_refused_before_anything_is_measured(tmp_path, capsys):
    command = ["fast-evaluate", "--folder", str(tmp_path / "figures"), "--models", str(tmp_path / "nowhere")]
    assert main(command) == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_an_adapter_on_the_default_model_loads_by_its_folder(run, tmp_path):
    export_student(run, tmp_path / "adapter", adapter=True)
    pipe = SJDAutoRegressivePipeline.from_pretrained(tmp_path / "adapter")
    base = SJDAutoRegressivePipeline.from_pretrained()
    name = QUERIES.partition(".")[2] + ".weight"
    assert not torch.equal(pipe.model.get_parameter(name), base.model.get_parameter(name))
    assert pipe.reviser is not None
