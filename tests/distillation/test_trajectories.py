"""Trajectories: what is kept of a run, resuming, prompts, and what a judge says."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sjd_pipelines import JacobiScheduler, SeededJacobiScheduler
from sjd_pipelines.distillation.measures import exit_agreement
from sjd_pipelines.distillation.trajectories import SETTINGS_FILE, Trajectory, load, read_prompts, record

from .conftest import PROMPTS, SETTINGS


def test_a_trajectory_is_the_decoding_of_its_seed(teacher, drawn):
    first, last = load(drawn)
    assert (first.prompts, first.seeds) == ([one["prompt"] for one in PROMPTS[:2]], [7, 8])
    assert last.seeds == [9]
    for part in (first, last):
        output = teacher(
            part.prompts,
            seeds=part.seeds,
            guidance_scale=2.0,
            scheduler=SeededJacobiScheduler(window=5),
            output_type="latent",
        )
        assert torch.equal(part.final, output.tokens)
        assert torch.equal(part.labels, part.final)
        assert part.passes.tolist() == output.statistics.forward_passes
        # A pass commits its right drafts and one token more.
        for row, gains in enumerate(output.statistics.committed_per_pass):
            fronts = [*part.fronts[: len(gains), row].tolist(), 16]
            assert [after - before for before, after in pairwise(fronts)] == gains


def test_greedy_trajectories_are_those_of_greedy_decoding(teacher, tmp_path):
    record(teacher, PROMPTS, tmp_path / "greedy", replace(SETTINGS, temperature=0.0))
    output = teacher(
        [one["prompt"] for one in PROMPTS],
        guidance_scale=2.0,
        temperature=0,
        scheduler=JacobiScheduler(window=5),
        output_type="latent",
    )
    assert torch.equal(torch.cat([part.final for part in load(tmp_path / "greedy")]), output.tokens)


def test_a_recording_goes_on_where_it_stopped(teacher, drawn):
    before = {file.name: file.read_bytes() for file in drawn.iterdir()}
    (drawn / "00001.safetensors").unlink()
    kept = (drawn / "00000.safetensors").stat().st_mtime_ns
    assert record(teacher, PROMPTS, drawn, SETTINGS) == 3
    assert {file.name: file.read_bytes() for file in drawn.iterdir()} == before
    assert (drawn / "00000.safetensors").stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="was recorded with another window, seed; choose another folder"):
        record(teacher, PROMPTS, drawn, replace(SETTINGS, window=4, seed=8))
    assert json.loads((drawn / SETTINGS_FILE).read_text())["window"] == 5


def test_a_recording_of_other_prompts_does_not_go_on(teacher, drawn):
    for entries in ([*PROMPTS, {"prompt": "a dog"}], PROMPTS[::-1]):
        with pytest.raises(ValueError, match="safetensors was recorded of other prompts; choose another folder"):
            record(teacher, entries, drawn, SETTINGS)
    file = drawn / "00000.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(OSError, match=r"00000\.safetensors is not as a run saves it"):
        record(teacher, PROMPTS, drawn, SETTINGS)


def test_a_file_of_other_shapes_is_damaged(drawn):
    file = drawn / "00000.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(load_file(file) | {"fronts": torch.zeros(3, 1, dtype=torch.int32)}, file, metadata)
    with pytest.raises(OSError, match=r"00000\.safetensors is not as a run saves it .* do not go with 2 prompts"):
        load(drawn)


def test_a_recording_stops_when_its_time_is_up(teacher, tmp_path):
    assert record(teacher, PROMPTS, tmp_path, SETTINGS, minutes=1e-9) == 0
    with pytest.raises(ValueError, match="holds no trajectories"):
        load(tmp_path)


def test_a_judge_gives_true_labels_of_wrong_pictures(teacher, tmp_path):
    true = torch.arange(16)
    seen = []

    def judge(entries, pictures):
        seen.append((entries, pictures))
        return [true if entry["prompt"] == "car" else None for entry in entries]

    record(teacher, PROMPTS, tmp_path, SETTINGS, judge)
    right, wrong = load(tmp_path)
    assert torch.equal(right.labels, right.final)
    assert torch.equal(wrong.labels[0], true)
    assert [entries for entries, _ in seen] == [PROMPTS[:2], PROMPTS[2:]]
    expected = teacher("car", seeds=[9], guidance_scale=2.0, output_type="pt").images
    assert torch.allclose(seen[1][1], expected, atol=1e-6)
    with pytest.raises(ValueError, match="was recorded with another judge; choose another folder"):
        record(teacher, PROMPTS, tmp_path, SETTINGS)
    assert record(teacher, PROMPTS, tmp_path, SETTINGS, judge) == 3


@pytest.mark.parametrize("judge", [lambda pictures: [], lambda entries, pictures, threshold: []])
def test_a_judge_of_something_else_is_refused_before_anything_is_drawn(teacher, tmp_path, judge):
    with pytest.raises(ValueError, match="must take prompt entries and their pictures"):
        record(teacher, PROMPTS, tmp_path / "new", SETTINGS, judge)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([None], "must say one thing of each of 2 pictures, got"),
        (None, "must say one thing of each of 2 pictures, got None"),
        ([None, torch.arange(3)], "must be a tensor of 16 whole numbers from 0 to"),
        ([None, list(range(16))], "must be a tensor of 16 whole numbers from 0 to"),
        ([torch.arange(16) + 0.5, None], "must be a tensor of 16 whole numbers from 0 to"),
        ([torch.arange(16) - 1, None], "must be a tensor of 16 whole numbers from 0 to"),
        ([torch.full((16,), 10**7), None], "must be a tensor of 16 whole numbers from 0 to"),
    ],
)
def test_what_a_judge_must_say(teacher, tmp_path, told, message):
    with pytest.raises(ValueError, match=message):
        record(teacher, PROMPTS[:2], tmp_path, SETTINGS, lambda entries, pictures: told)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_file_is_no_folder_to_record_in(teacher, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(OSError, match="file is not a folder; choose another one"):
            record(teacher, PROMPTS, folder, SETTINGS)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "a dog\n\n  two cats \n", [{"prompt": "a dog"}, {"prompt": "two cats"}]),
        ("a.jsonl", '{"prompt": "a dog", "scene": 1}\n', [{"prompt": "a dog", "scene": 1}]),
    ],
)
def test_files_of_prompts(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert read_prompts(tmp_path / name) == expected


@pytest.mark.parametrize("line", ["a dog", '["a dog"]', '{"text": "a dog"}', '{"prompt": ["a", "b"]}'])
def test_a_line_without_a_prompt_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n' + line)
    with pytest.raises(ValueError, match="line 2: expected an object such as"):
        read_prompts(tmp_path / "a.jsonl")


def test_nothing_to_record_is_an_error(teacher, tmp_path):
    with pytest.raises(ValueError, match="no prompts"):
        record(teacher, [], tmp_path, SETTINGS)


@pytest.mark.parametrize("prompt", ["a \ud800 cat", ""])
def test_prompts_that_no_pipeline_draws_are_not_recorded(teacher, tmp_path, prompt):
    with pytest.raises(ValueError, match="prompt"):
        record(teacher, [{"prompt": prompt}], tmp_path / "new", SETTINGS)
    assert not (tmp_path / "new").exists()


def test_negative_numbers_are_no_trajectory(drawn):
    file = sorted(drawn.glob("*.safetensors"))[0]
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    save_file(tensors | {"fronts": tensors["fronts"] - 1}, file, metadata)
    with pytest.raises(OSError, match=r"is not as a run saves it .*a number in it is negative"):
        load(drawn)


def test_agreement_counts_iterations_from_where_a_token_enters():
    """Four tokens, a window of two: the third is wrong at first, and right after two choices of the target."""
    final = torch.tensor([[5, 6, 7, 8]])
    fronts = torch.tensor([[0], [1], [2], [4]])
    drafts = torch.tensor([[[5, 0]], [[6, 1]], [[7, 8]], [[0, 0]]])
    drawn = Trajectory(["a"], [0], None, final, final, fronts, drafts)
    # Entered in passes 0, 0, 1, 2. After one choice: right, right (pass 1), right (pass 2), committed by pass 3.
    assert exit_agreement(drawn, (0, 1, 2)) == {0: 0.5, 1: 1.0, 2: 1.0}
    drawn.drafts[2, 0, 0] = 3
    assert exit_agreement(drawn, (1, 2)) == {1: 0.75, 2: 1.0}
