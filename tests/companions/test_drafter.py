"""A draft model in a pipeline: what it sees while decoding."""

import torch

from sjd_pipelines.companions.drafter import RunningDrafter
from sjd_pipelines.decoding import Query, Sampling, TargetPass, probabilities
from sjd_pipelines.decoding.drafter import DraftQuery
from sjd_pipelines.training.drafter import roll_out, teach


def query(tokens, positions, parents=None, wanted=None):
    visible = torch.arange(int(positions.max()) + 1, device=positions.device) <= positions[..., None]
    return DraftQuery(tokens.gather(1, positions), positions, positions + 1, visible, parents=parents, wanted=wanted)


@torch.no_grad()
def test_a_drafter_sees_in_decoding_what_it_saw_in_training(pipe):
    """Three drafts in a row, behind another token in each picture, against teacher-forced roll-outs of whole ones."""
    tokens = torch.randint(16, (2, 16), generator=torch.Generator().manual_seed(0)).to(pipe.device)
    hidden, _ = teach(pipe, ["a red dog", "car"], tokens, 2.0)
    embeds = pipe.embed_image_tokens(tokens[:, :-1]).repeat(2, 1, 1)
    guesses = roll_out(pipe.drafter, hidden[:, :-1], embeds, columns=4, steps=3)
    expected = [probabilities(pipe.guided_logits(guess, 2.0)) for guess in guesses]  # three of [2, 15, 16]

    layout = pipe.image_layout(None, None)
    encoded = pipe.encode_prompt(["a red dog", "car"], None, True, 1)
    drafter = RunningDrafter(pipe.drafter, pipe.prepare_target(encoded, layout, Sampling(2.0), margin=4))
    drafter.observe(TargetPass(Query.teacher_forced(tokens), hidden, hidden))
    root, rows = torch.tensor([[5], [8]], device=pipe.device), torch.arange(2, device=pipe.device)[:, None]
    laws = drafter.laws(query(tokens, torch.arange(9, device=pipe.device).expand(2, -1), wanted=root))
    assert torch.allclose(laws, expected[0][rows, root], atol=1e-5)
    for step in (1, 2):
        laws = drafter.laws(query(tokens, root + step, parents=root + step - 1))
        assert torch.allclose(laws, expected[step][rows, root + step], atol=1e-5)
        assert not torch.allclose(laws, expected[0][rows, root + step], atol=1e-3)  # which sees the target's states
