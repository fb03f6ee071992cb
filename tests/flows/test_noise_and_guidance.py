"""Normal noise by seed and place, and guidance by its formula."""

import pytest
import torch

from sjd_pipelines.flows import FlowGuidance, normal_noise


def test_noise_is_normal():
    noise = normal_noise(list(range(8)), 64, 48).flatten().sort().values
    count = len(noise)
    assert noise.isfinite().all()
    # Kolmogorov-Smirnov distance from the normal law; 1.95 / sqrt(n) is exceeded once in a thousand samples
    distance = (torch.special.ndtr(noise) - (torch.arange(count) + 0.5) / count).abs().max()
    assert distance < 1.95 / count**0.5
    channels = normal_noise([3], 4096, 4)[0]
    assert (torch.corrcoef(channels.T) - torch.eye(4)).abs().max() < 0.07


def test_noise_belongs_to_seed_and_place():
    noise = normal_noise([5, 6, 5], 16, 12)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1:2], normal_noise([6], 16, 12))
    assert torch.equal(noise[:, :9], normal_noise([5, 6, 5], 9, 12))
    assert noise.unique().numel() == 2 * 16 * 12


def test_known_numbers():
    """The same on every machine, for as long as seeds are to mean pictures."""
    expected = [
        0.11802348983493599,
        -1.0959829624140673,
        -1.552299152507269,
        -0.8793607385452997,
        -0.41799698602007274,
        1.2892335975275742,
        -0.945196144402941,
        0.7746793657454621,
    ]
    assert torch.allclose(normal_noise([0, 2**63 - 1], 2, 2).flatten(), torch.tensor(expected).double(), atol=1e-12)


def test_weights_grow_along_the_tokens():
    like = torch.zeros((), dtype=torch.float64)
    assert FlowGuidance(2.0).weights(5, like).flatten().tolist() == [0.5, 1.0, 1.5, 2.0]
    assert FlowGuidance(2.0, annealed=False).weights(5, like).flatten().tolist() == [2.0] * 4


@pytest.mark.parametrize(("what", "scale", "shift"), [("both", 3.0, 8.0), ("scale", 3.0, 4.0), ("shift", 1.0, 8.0)])
def test_what_is_guided(what, scale, shift):
    s, u = torch.tensor([1.0, -1.0]).view(2, 1, 1), torch.tensor([4.0, 0.0]).view(2, 1, 1)
    mixed = FlowGuidance(1.0, what=what).mix(s, u, torch.ones(1, 1))
    assert [float(tensor) for tensor in mixed] == [scale, shift]


def test_a_second_branch_that_would_say_the_same_is_left_out():
    assert FlowGuidance(1.0).branches(class_conditional=True) == 2
    assert FlowGuidance(0.0, temperature=0.5).branches(class_conditional=True) == 1
    assert FlowGuidance(1.0).branches(class_conditional=False) == 1
    assert FlowGuidance(1.0, temperature=0.5).branches(class_conditional=False) == 2


def test_bad_guidance_is_refused():
    with pytest.raises(ValueError, match="guide_what must be one of both, scale, shift; got 'ab'"):
        FlowGuidance(1.0, what="ab")
    with pytest.raises(ValueError, match="attention_temperature must be a number above 0, got 0"):
        FlowGuidance(1.0, temperature=0)
