"""A draft reviser in a pipeline: what it sees while decoding."""

import pytest
import torch

from sjd_pipelines import (
    DraftReviser,
)
from sjd_pipelines.companions.reviser import RunningReviser, neighbours
from sjd_pipelines.decoding import ImageTokenLayout, Query, Sampling, TargetPass


def test_neighbours_are_left_and_above():
    # The next token stands at (2, 3) of rows of 10: its left neighbour is token 22.
    left_and_above = 22 - neighbours(10)
    assert left_and_above.tolist() == [22, 21, 20, 14, 13, 12]


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DraftReviser(8, 16, code_size=4, intermediate_size=12, rank=6).eval()


class Lender:
    """What a reviser borrows of its target: pictures of 6 x 5 tokens."""

    layout, batch_size, length, device = ImageTokenLayout(6, 5, 16), 2, 30, torch.device("cpu")

    def __init__(self, image_embeds, guidance_scale):
        self.image_embeds, self.sampling = image_embeds, Sampling(guidance_scale)

    def law(self, logits, predicts):
        return logits.softmax(-1)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@torch.no_grad()
def test_what_it_looks_at(network, guidance_scale):
    """Against the network on one place at a time; rows stand at different places of the canvas."""
    copies = 2 if guidance_scale > 1 else 1
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(16, (2, 30), generator=generator)
    starts, size = torch.tensor([[1], [9]]), 12
    positions = starts + torch.arange(size)  # [2, 12]
    visible = torch.ones(2, size, 30, dtype=torch.bool)
    query = Query(canvas.gather(1, positions), positions, positions + 1, visible)
    hidden = torch.randn(copies * 2, size, 8, generator=generator)
    logits = torch.randn(2, size, 16, generator=generator)
    embeds = torch.randn(16, 8, generator=generator)
    running = RunningReviser(network, Lender(embeds, guidance_scale))
    everything = torch.arange(30).expand(2, -1)
    earlier = Query(canvas, everything, everything + 1, everything[..., None] >= 0)
    running.observe(TargetPass(earlier, hidden, logits))
    running.observe(TargetPass(query, hidden, logits))
    now = canvas.clone()
    now[0, 4], now[1, 12] = (canvas[0, 4] + 1) % 16, (canvas[1, 12] + 3) % 16
    asked = positions[:, 1:]
    laws = running.at(asked + 1)(now)

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
