"""A draft model in a pipeline: what it sees while decoding, forced tokens, saving and loading."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sjd_pipelines import (
    AutoregressiveScheduler,
    EagleDrafter,
    EagleScheduler,
    SeededEagleScheduler,
    SJDAutoRegressivePipeline,
)
from sjd_pipelines.decoding import probabilities
from sjd_pipelines.decoding.drafter import DraftQuery
from sjd_pipelines.pipelines.drafting import RunningDrafter
from sjd_pipelines.training.drafter import roll_out, teach

PROMPTS = ["a red dog", "two blue cat on a green house", "car"]
FRESH = """
import sys, torch
from sjd_pipelines import EagleScheduler, SJDAutoRegressivePipeline
pipe = SJDAutoRegressivePipeline.from_pretrained(sys.argv[1], scheduler=EagleScheduler(window=5))
pipe.set_progress_bar_config(disable=True)
output = pipe("a red dog", generator=torch.Generator().manual_seed(7), output_type="latent")
print(type(pipe.drafter).__name__, output.statistics.forward_passes[0], output.tokens[0].tolist())
"""


def generators():
    return [torch.Generator().manual_seed(seed) for seed in range(3)]


def drafter_for(pipe, heads=2):
    width = pipe.embed_image_tokens(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EagleDrafter(width, heads, 2 * width).eval()


def query(tokens, positions, parents=None, wanted=None):
    visible = torch.arange(int(positions.max()) + 1) <= positions[..., None]
    return DraftQuery(tokens.gather(1, positions.clamp(min=0)), positions, visible, parents=parents, wanted=wanted)


@torch.no_grad()
def test_a_drafter_sees_in_decoding_what_it_saw_in_training(pipe):
    """Three drafts in a row, behind another token in each picture, against teacher-forced roll-outs of whole ones."""
    tokens = torch.randint(16, (2, 16), generator=torch.Generator().manual_seed(0))
    hidden, _ = teach(pipe, ["a red dog", "car"], tokens, 2.0)
    embeds = pipe.embed_image_tokens(tokens[:, :-1]).repeat(2, 1, 1)
    guesses = roll_out(pipe.drafter, hidden[:, :-1], embeds, columns=4, steps=3)
    expected = [probabilities(pipe.guided_logits(guess, 2.0)) for guess in guesses]  # three of [2, 15, 16]

    drafter = RunningDrafter(
        pipe.drafter,
        pipe.embed_image_tokens(torch.arange(16)),
        lambda hidden, positions: probabilities(pipe.guided_logits(hidden, 2.0)),
        length=20,
        columns=4,
    )
    drafter.observe(query(tokens, torch.arange(-1, 15).expand(2, -1)), hidden)
    root, rows = torch.tensor([[5], [8]]), torch.arange(2)[:, None]
    laws = drafter.laws(query(tokens, torch.arange(9).expand(2, -1), wanted=root))
    assert torch.allclose(laws, expected[0][rows, root], atol=1e-5)
    for step in (1, 2):
        laws = drafter.laws(query(tokens, root + step, parents=root + step - 1))
        assert torch.allclose(laws, expected[step][rows, root + step], atol=1e-5)
        assert not torch.allclose(laws, expected[0][rows, root + step], atol=1e-3)  # which sees the target's states


@pytest.mark.parametrize("family", ["emu3", "captions", "lumina"])
def test_every_family_takes_a_drafter(request, family):
    """Rows end in forced tokens in two of them."""
    member = request.getfixturevalue(family)
    scheduler = member.scheduler
    member.scheduler = AutoregressiveScheduler()
    reference = member(PROMPTS, generator=generators(), output_type="latent").tokens
    try:
        member.register_modules(drafter=drafter_for(member))
        for cls, same in ((SeededEagleScheduler, True), (EagleScheduler, False)):
            member.scheduler = cls(window=9, depth=4)
            output = member(PROMPTS, generator=generators(), output_type="latent")
            assert torch.equal(output.tokens, reference) == same
            assert sum(output.statistics.forward_passes) < output.statistics.acceptance_map.numel()
    finally:
        member.scheduler = scheduler
        member.register_modules(drafter=None)


def in_a_fresh_process(folder):
    result = subprocess.run([sys.executable, "-c", FRESH, str(folder)], capture_output=True, text=True, check=True)
    return result.stdout.strip().splitlines()[-1]


def test_a_drafter_is_saved_and_loaded_beside_its_target(pipe, tmp_path):
    pipe.scheduler = EagleScheduler(window=5)
    output = pipe("a red dog", generator=torch.Generator().manual_seed(7), output_type="latent")
    expected = f"EagleDrafter {output.statistics.forward_passes[0]} {output.tokens[0].tolist()}"
    pipe.save_pretrained(tmp_path / "diffusers")
    index = json.loads((tmp_path / "diffusers" / "model_index.json").read_text())
    assert index["drafter"] == ["sjd_pipelines", "EagleDrafter"]
    assert in_a_fresh_process(tmp_path / "diffusers") == expected
    folder = tmp_path / "transformers"
    pipe.model.save_pretrained(folder)
    pipe.processor.save_pretrained(folder)
    assert SJDAutoRegressivePipeline.from_pretrained(folder).drafter is None
    pipe.drafter.save_pretrained(folder / "drafter")
    assert in_a_fresh_process(folder) == expected
    half = SJDAutoRegressivePipeline.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.drafter.dtype == torch.bfloat16


def test_an_incomplete_drafter_is_refused(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    pipe.processor.save_pretrained(tmp_path)
    pipe.drafter.save_pretrained(tmp_path / "drafter")
    (file,) = (tmp_path / "drafter").glob("*.safetensors")
    weights = load_file(file)
    del weights["fuse.bias"]
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"drafter lacks 1 weights of the model .*: \['fuse.bias'\]"):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)
