import pytest
import torch

from sjd_pipelines.decoding import (
    FREE,
    PositionNoise,
    Purpose,
    force,
    guide,
    inverse_transform,
    most_likely,
    probabilities,
    race,
)

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.5, -1.0])


def test_guidance_mixes_raw_logits():
    assert torch.equal(guide(torch.tensor(3.0), torch.tensor(1.0), 5.0), torch.tensor(11.0))


def test_temperature_divides_and_zero_is_greedy():
    assert torch.allclose(probabilities(LOGITS, 0.5), (2 * LOGITS).softmax(-1))
    assert probabilities(LOGITS, 0).tolist() == [1, 0, 0, 0, 0]


def test_top_k_keeps_ties():
    law = probabilities(LOGITS, top_k=3)
    assert (law > 0).tolist() == [True, True, True, True, False]
    assert law.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("top_k", [0, None, 5, 99])
def test_top_k_that_keeps_everything(top_k):
    assert torch.equal(probabilities(LOGITS, top_k=top_k), LOGITS.softmax(-1))


def test_top_p_keeps_the_smallest_sufficient_set():
    law = LOGITS.softmax(-1)
    cut = probabilities(LOGITS, top_p=(law[0] + 0.5 * law[1]).item())
    assert (cut > 0).tolist() == [True, True, False, False, False]
    assert torch.allclose(cut[:2], law[:2] / law[:2].sum())
    assert torch.equal(probabilities(LOGITS, top_p=1.0), law)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])  # the mass is held by few tokens, by many, by nearly all
def test_top_p_agrees_with_a_full_sort(temperature):
    noise = PositionNoise([1]).gumbel(torch.arange(50)[None], Purpose.SAMPLE, 300)[0]
    law = probabilities(noise, temperature)  # [50, 300]
    ordered, order = law.sort(-1, descending=True)
    kept = (ordered.cumsum(-1) - ordered < 0.8).gather(-1, order.argsort(-1))
    cut = probabilities(noise, temperature, top_p=0.8)
    assert torch.equal(cut > 0, kept)
    assert torch.allclose(cut, law * kept / (law * kept).sum(-1, keepdim=True))


def test_top_p_keeps_ties():
    assert (probabilities(torch.zeros(3, 5), top_p=0.5) == 0.2).all()
    several = torch.zeros(2, 80)
    several[1, 9] = 9.0
    cut = probabilities(several, top_p=0.01)  # more equal tokens than are looked at first
    assert (cut[0] == cut[0, 0]).all()
    assert cut[1].tolist() == [0.0] * 9 + [1.0] + [0.0] * 70


def test_top_p_follows_top_k():
    law = LOGITS[:2].softmax(-1)
    cut = probabilities(LOGITS, top_k=2, top_p=law[0].item() - 0.01)
    assert cut.tolist() == [1, 0, 0, 0, 0]


def test_half_precision_logits_give_float32():
    assert probabilities(LOGITS.bfloat16()).dtype == torch.float32


def test_force_masks_structural_and_free_slots():
    logits = torch.zeros(1, 2, 6)
    law = probabilities(force(logits, torch.tensor([[FREE, 5]]), codebook_size=4))
    assert law[0, 0].tolist() == [0.25] * 4 + [0, 0]
    assert law[0, 1].tolist() == [0, 0, 0, 0, 0, 1]


def test_the_first_of_the_most_likely_is_taken():
    law = torch.tensor([[[0.2, 0.4, 0.4], [0.5, 0.5, 0.0]]])
    assert most_likely(law).tolist() == [[1, 0]]
    assert most_likely(law[0, 0]).item() == 1


def test_race_draws_from_the_law():
    law = LOGITS.softmax(-1)
    noise = PositionNoise([0]).exponential(torch.arange(20_000)[None], Purpose.SAMPLE, 5)
    counts = race(law, noise).flatten().bincount(minlength=5).double()
    expected = law.double() * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 23.5  # 4 degrees of freedom: p = 1e-4


def test_the_inverse_transform_draws_from_the_law():
    law = LOGITS.softmax(-1)
    uniform = PositionNoise([0]).uniform(torch.arange(20_000)[None], Purpose.SAMPLE)
    counts = inverse_transform(law.expand(1, 20_000, 5), uniform).flatten().bincount(minlength=5).double()
    expected = law.double() * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 23.5  # 4 degrees of freedom: p = 1e-4


def test_the_inverse_transform_ignores_the_norm_and_excludes_zero():
    law = torch.tensor([0.0, 1.0, 2.0, 0.0, 3.0, 0.0]).expand(8, 6)
    uniform = torch.tensor([0.0, 0.16, 0.17, 0.49, 0.51, 0.9, 1 - 2**-24, 0.55])
    assert inverse_transform(law, uniform).tolist() == [1, 1, 2, 2, 4, 4, 4, 4]
    assert torch.equal(inverse_transform(law, uniform), inverse_transform(law / 6, uniform))


def test_race_ignores_the_norm_and_excludes_zero():
    noise = PositionNoise([0]).exponential(torch.arange(500)[None], Purpose.SAMPLE, 5)
    law = torch.tensor([0.0, 1.0, 2.0, 0.0, 3.0])
    assert torch.equal(race(law, noise), race(law / 6, noise))
    assert set(race(law, noise).unique().tolist()) == {1, 2, 4}
