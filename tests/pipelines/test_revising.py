"""A draft reviser in a pipeline: what it sees while decoding, forced tokens, saving and loading."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sjd_pipelines import (
    AutoregressiveScheduler,
    DraftReviser,
    RevisedJacobiScheduler,
    SJDAutoRegressivePipeline,
)
from sjd_pipelines.decoding import Query
from sjd_pipelines.models.reviser import neighbours
from sjd_pipelines.pipelines.revising import RunningReviser

PROMPTS = ["a red dog", "two blue cat on a green house", "car"]
FRESH = """
import sys, torch
from sjd_pipelines import RevisedJacobiScheduler, SJDAutoRegressivePipeline
pipe = SJDAutoRegressivePipeline.from_pretrained(sys.argv[1], scheduler=RevisedJacobiScheduler(window=5))
pipe.set_progress_bar_config(disable=True)
output = pipe("a red dog", generator=torch.Generator().manual_seed(7), output_type="latent")
print(type(pipe.reviser).__name__, output.statistics.forward_passes[0], output.tokens[0].tolist())
"""


def generators():
    return [torch.Generator().manual_seed(seed) for seed in range(3)]


def reviser_for(pipe):
    layout = pipe.image_layout(None, None)
    width = pipe.embed_image_tokens(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DraftReviser(width, layout.vocabulary_size, code_size=6, intermediate_size=10, rank=5).eval()


def test_neighbours_are_left_and_above():
    # The next token stands at (2, 3) of rows of 10: its left neighbour is token 22.
    left_and_above = 22 - neighbours(10)
    assert left_and_above.tolist() == [22, 21, 20, 14, 13, 12]


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DraftReviser(8, 16, code_size=4, intermediate_size=12, rank=6).eval()


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@torch.no_grad()
def test_what_it_looks_at(network, guidance_scale):
    """Against the network on one place at a time; rows stand at different places of the canvas."""
    copies = 2 if guidance_scale > 1 else 1
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(16, (2, 30), generator=generator)
    starts, size = torch.tensor([[-1], [9]]), 12
    positions = starts + torch.arange(size)  # [2, 12]
    query = Query(canvas.gather(1, positions.clamp(min=0)), positions, torch.ones(2, size, 30, dtype=torch.bool))
    hidden = torch.randn(copies * 2, size, 8, generator=generator)
    logits = torch.randn(2, size, 16, generator=generator)
    embeds = torch.randn(16, 8, generator=generator)
    running = RunningReviser(
        network, embeds, lambda logits, positions: logits.softmax(-1), guidance_scale, columns=5, length=30
    )
    everything = torch.arange(30).expand(2, -1)
    running.observe(Query(canvas, everything, everything[..., None] >= 0), hidden, logits)  # of earlier passes
    running.observe(query, hidden, logits)
    now = canvas.clone()
    now[0, 4], now[1, 12] = (canvas[0, 4] + 1) % 16, (canvas[1, 12] + 3) % 16
    asked = positions[:, 1:]
    laws = running.at(asked)(now)

    codes = network.code(embeds)
    touched = []
    for row, change in ((0, 4), (1, 12)):
        for column, position in enumerate(asked[row].tolist()):
            places = [position - offset for offset in (0, 1, 2, 3, 4, 5)]
            # In front of the picture stands token 0.
            seen, tokens = (
                torch.stack([codes[held[row, place] if place >= 0 else 0] for place in places])
                for held in (canvas, now)
            )
            slot = position - int(starts[row])
            states = [hidden[copy * 2 + row, [slot, slot - 1]] for copy in range(copies)]
            outputs = [network.change(network(state, seen, tokens)) for state in states]
            delta = outputs[-1] + guidance_scale * (outputs[0] - outputs[-1])
            if change not in places:
                delta = torch.zeros(16)  # what has not changed keeps the target's law
            else:
                touched.append(position - change)
            expected = (logits[row, slot] + delta).softmax(-1)
            assert torch.allclose(laws[row, column], expected, atol=1e-5)
    assert touched == [0, 1, 2, 3, 4, 5] * 2


@pytest.mark.parametrize("family", ["emu3", "captions", "lumina"])
def test_every_family_takes_a_reviser(request, family):
    """Rows end in forced tokens in two of them."""
    member = request.getfixturevalue(family)
    scheduler = member.scheduler
    member.scheduler = AutoregressiveScheduler()
    reference = member(PROMPTS, generator=generators(), output_type="latent").tokens
    try:
        member.register_modules(reviser=reviser_for(member))
        member.scheduler = RevisedJacobiScheduler(window=9, reach=9, revisions=2)
        output = member(PROMPTS, generator=generators(), output_type="latent")
        assert torch.equal(output.tokens, reference)
        assert sum(output.statistics.forward_passes) < output.statistics.acceptance_map.numel()
    finally:
        member.scheduler = scheduler
        member.register_modules(reviser=None)


def in_a_fresh_process(folder):
    result = subprocess.run([sys.executable, "-c", FRESH, str(folder)], capture_output=True, text=True, check=True)
    return result.stdout.strip().splitlines()[-1]


def test_a_reviser_is_saved_and_loaded_beside_its_target(pipe, tmp_path):
    pipe.scheduler = RevisedJacobiScheduler(window=5)
    output = pipe("a red dog", generator=torch.Generator().manual_seed(7), output_type="latent")
    expected = f"DraftReviser {output.statistics.forward_passes[0]} {output.tokens[0].tolist()}"
    pipe.save_pretrained(tmp_path / "diffusers")
    index = json.loads((tmp_path / "diffusers" / "model_index.json").read_text())
    assert index["reviser"] == ["sjd_pipelines", "DraftReviser"]
    assert in_a_fresh_process(tmp_path / "diffusers") == expected
    folder = tmp_path / "transformers"
    pipe.model.save_pretrained(folder)
    pipe.processor.save_pretrained(folder)
    assert SJDAutoRegressivePipeline.from_pretrained(folder).reviser is None
    pipe.reviser.save_pretrained(folder / "reviser")
    assert in_a_fresh_process(folder) == expected
    assert type(SJDAutoRegressivePipeline.from_pretrained(folder).scheduler) is RevisedJacobiScheduler
    half = SJDAutoRegressivePipeline.from_pretrained(
        folder, dtype=torch.bfloat16, scheduler=RevisedJacobiScheduler(window=5)
    )
    assert half.reviser.dtype == torch.bfloat16
    half.set_progress_bar_config(disable=True)
    assert half("a red dog", output_type="latent").statistics.forward_passes[0] <= 16


def test_an_incomplete_reviser_is_refused(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    pipe.processor.save_pretrained(tmp_path)
    pipe.reviser.save_pretrained(tmp_path / "reviser")
    (file,) = (tmp_path / "reviser").glob("*.safetensors")
    weights = load_file(file)
    del weights["table.weight"]
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"reviser lacks 1 weights of the model .*: \['table.weight'\]"):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)
