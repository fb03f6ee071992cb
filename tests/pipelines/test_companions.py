"""Draft model and reviser: every family takes them, with its forced tokens, and saves and loads them."""

import inspect
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sjd_pipelines import (
    SCHEDULERS,
    AutoregressiveScheduler,
    EagleScheduler,
    RevisedJacobiScheduler,
    SeededEagleScheduler,
    SeededJacobiScheduler,
    SJDAutoRegressivePipeline,
)
from sjd_pipelines.companions import COMPANIONS
from sjd_pipelines.pipelines.families import AUTOREGRESSIVE, FAMILIES

from ..conftest import generators

PROMPTS = ["a red dog", "two blue cat on a green house", "car"]
FRESH = """
import sys, torch
from sjd_pipelines import SCHEDULERS, SJDAutoRegressivePipeline
name, scheduler, *folders = sys.argv[1:]
for folder in folders:
    pipe = SJDAutoRegressivePipeline.from_pretrained(folder, scheduler=SCHEDULERS[scheduler](window=5))
    pipe.set_progress_bar_config(disable=True)
    output = pipe("a red dog", generator=torch.Generator().manual_seed(7), output_type="latent")
    print(type(getattr(pipe, name)).__name__, output.statistics.forward_passes[0], output.tokens[0].tolist())
"""
# Companion -> the first scheduler that needs it.
SCHEDULER_OF = {companion: name for name in reversed([*SCHEDULERS]) for companion in SCHEDULERS[name].companions}


def companion_for(name, pipe):
    """An untrained one that fits the pipeline."""
    width = pipe.embed_image_tokens(torch.zeros(1, 1, dtype=torch.int64, device=pipe.device)).shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return COMPANIONS[name].small(width, pipe.image_layout(None, None).vocabulary_size).eval().to(pipe.device)


def transformers_folder(pipe, folder):
    pipe.model.save_pretrained(folder)
    pipe.processor.save_pretrained(folder)
    return folder


def scheduler_of(name):
    return SCHEDULER_OF.get(name, "seeded-jacobi")


def in_a_fresh_process(name, *folders):
    """What each folder draws: companion, passes and tokens in a line."""
    command = [sys.executable, "-c", FRESH, name, scheduler_of(name), *map(str, folders)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    return lines[-len(folders) :]


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.kind == AUTOREGRESSIVE], ids=lambda f: f.module)
def test_every_constructor_states_the_companions(family):
    cls = family.load()
    parameters = inspect.signature(cls).parameters
    assert [*parameters][-len(COMPANIONS) :] == [*COMPANIONS]
    assert all(parameters[name].default is None for name in COMPANIONS)
    assert set(COMPANIONS) <= set(cls._optional_components)
    assert "scheduler" in parameters


def test_companions_are_components(toy):
    cls, own, drafter = type(toy), (toy.model, toy.processor, toy.scheduler), companion_for("drafter", toy)
    assert cls(*own).drafter is None
    for pipe in (cls(*own, drafter), cls(*own, drafter=drafter), cls(*own, reviser=None, drafter=drafter)):
        assert pipe.drafter is drafter
        assert pipe.reviser is None
        assert pipe.components["drafter"] is drafter
        assert pipe.config.drafter == ("sjd_pipelines", "EagleDrafter")


def test_what_the_constructor_does_not_take_is_refused(toy):
    with pytest.raises(TypeError, match="unexpected keyword argument 'draftor'"):
        type(toy)(toy.model, toy.processor, toy.scheduler, draftor=None)
    with pytest.raises(TypeError, match="missing a required argument: 'scheduler'"):
        type(toy)(toy.model, toy.processor)


@pytest.mark.parametrize("family", ["emu3", "captions", "lumina"])
@pytest.mark.parametrize(
    ("name", "scheduler", "same"),
    [
        ("drafter", SeededEagleScheduler(window=9, depth=4), True),
        ("drafter", EagleScheduler(window=9, depth=4), False),
        ("reviser", RevisedJacobiScheduler(window=9, reach=9, revisions=2), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_family_takes_a_companion(request, family, name, scheduler, same):
    """Rows end in forced tokens in two of them."""
    member = request.getfixturevalue(family)
    before, member.scheduler = member.scheduler, AutoregressiveScheduler()
    reference = member(PROMPTS, generator=generators(0, 1, 2), output_type="latent").tokens
    try:
        member.register_modules(**{name: companion_for(name, member)})
        member.scheduler = scheduler
        output = member(PROMPTS, generator=generators(0, 1, 2), output_type="latent")
        assert torch.equal(output.tokens, reference) == same
        assert sum(output.statistics.forward_passes) < output.statistics.acceptance_map.numel()
    finally:
        member.scheduler = before
        member.register_modules(**{name: None})


@pytest.mark.parametrize("name", COMPANIONS)
def test_a_companion_is_saved_and_loaded_beside_its_target(pipe, tmp_path, name):
    pipe.scheduler = SCHEDULERS[scheduler_of(name)](window=5)
    output = pipe("a red dog", generator=torch.Generator().manual_seed(7), output_type="latent")
    kind, companion = COMPANIONS[name].__name__, getattr(pipe, name)
    expected = f"{kind} {output.statistics.forward_passes[0]} {output.tokens[0].tolist()}"
    pipe.save_pretrained(tmp_path / "diffusers")
    index = json.loads((tmp_path / "diffusers" / "model_index.json").read_text())
    assert index[name] == ["sjd_pipelines", kind]

    folder = transformers_folder(pipe, tmp_path / "transformers")
    assert getattr(SJDAutoRegressivePipeline.from_pretrained(folder), name) is None
    companion.save_pretrained(folder / name)
    assert in_a_fresh_process(name, tmp_path / "diffusers", folder) == [expected] * 2
    half = SJDAutoRegressivePipeline.from_pretrained(folder, dtype=torch.bfloat16)
    assert getattr(half, name).dtype == torch.bfloat16
    assert type(half.scheduler) is (RevisedJacobiScheduler if name == "reviser" else SeededJacobiScheduler)
    half.scheduler = pipe.scheduler
    half.set_progress_bar_config(disable=True)
    assert half("a red dog", output_type="latent").statistics.forward_passes[0] <= 16


@pytest.mark.parametrize("name", COMPANIONS)
def test_an_incomplete_companion_is_refused(pipe, tmp_path, name):
    transformers_folder(pipe, tmp_path)
    getattr(pipe, name).save_pretrained(tmp_path / name)
    (file,) = (tmp_path / name).glob("*.safetensors")
    weights = load_file(file)
    lacking = min(weights)
    del weights[lacking]
    save_file(weights, file)
    with pytest.raises(ValueError, match=rf"{name} lacks 1 weights of the model .*: \['{lacking}'\]"):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)
