"""Every label is held by statistics on an enumerable model, and the statistics catch deliberately broken rules."""

import pytest
import torch

from sjd_pipelines import CoupledSJDScheduler, JacobiScheduler, SeededJacobiScheduler, SJDScheduler
from sjd_pipelines.benchmark.exactness import (
    SAMPLING,
    draw,
    enumerable_pipeline,
    image_law,
    judge,
    sampling_noise,
    total_variation,
    verify,
)
from sjd_pipelines.decoding import Purpose, race
from sjd_pipelines.schedulers import SCHEDULERS
from sjd_pipelines.schedulers.raster_window import Slots
from sjd_pipelines.schedulers.rules.speculative import Speculative
from sjd_pipelines.schedulers.verification import leading

SAMPLES = 6000
LOSSLESS = {
    "sjd": SJDScheduler,
    "coupled-maximal": CoupledSJDScheduler,
    "coupled-gumbel": lambda **settings: CoupledSJDScheduler(coupling="gumbel", **settings),
}


@pytest.fixture(scope="module")
def pipe(device):
    return enumerable_pipeline().to(device)


def test_the_law_is_a_distribution_that_top_k_cuts(pipe):
    law = image_law(pipe, **SAMPLING)
    assert law.sum().item() == pytest.approx(1, abs=1e-5)
    assert 16 < (law > 0).sum() <= 81
    assert law.max() < 0.5  # wide enough to tell a biased scheduler


@pytest.mark.parametrize("window", [1, 2, 3, 8])
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_schedulers_draw_from_the_law(pipe, name, window):
    verdict = judge(pipe, LOSSLESS[name](window=window), SAMPLES, seed=window)
    assert verdict.passed, verdict
    assert verdict.label == "lossless"


@pytest.mark.parametrize(
    "initialise", ["random", "uniform", "repeat-left", "repeat-above", "sample-above", "law-left"]
)
def test_no_initialisation_biases_sjd(pipe, initialise):
    verdict = judge(pipe, SJDScheduler(window=3, initialise=initialise), SAMPLES, seed=11)
    assert verdict.passed, verdict


@pytest.mark.parametrize("window", [1, 2, 3, 8])
def test_seeded_jacobi_is_sequential_decoding_image_by_image(pipe, window):
    verdict = judge(pipe, SeededJacobiScheduler(window=window), SAMPLES, seed=window)
    assert verdict.passed, verdict
    assert verdict.identical == 1


def test_progress_is_ragged_and_committed_per_row(pipe):
    before, pipe.scheduler = pipe.scheduler, SJDScheduler(window=3)
    output = pipe("a red dog", num_images_per_prompt=1000, output_type="latent", **SAMPLING)
    pipe.scheduler = before
    assert len(set(output.statistics.forward_passes)) > 1


def test_verify_reports_every_scheduler():
    verdicts = verify(windows=(2,), samples=1000)
    assert {verdict["scheduler"] for verdict in verdicts} == {*SCHEDULERS}
    assert all(verdict["passed"] for verdict in verdicts)


class StaleLaw(CoupledSJDScheduler):
    """Keeps the old law beside a kept draft, as a public release of coupled decoding does."""

    def step(self, probabilities, query, state, noise):
        slots = Slots(probabilities, query.token_ids[:, 1:], query.predicts, state, noise)
        keep, positions = self.accept(slots), slots.positions[:, :-1]
        old = state.laws.read(positions)
        state = super().step(probabilities, query, state, noise)
        state.laws.write(positions, torch.where(keep[..., None], old, probabilities[:, :-1]))
        return state


class ResampleTarget(SJDScheduler):
    """Draws the token behind a rejection from p instead of the residual."""

    class Rule(Speculative):
        def residual(self, target, draft_law, drafts):
            return target

    acceptance = Rule()


class SlotNoise(CoupledSJDScheduler):
    """Gumbel coupling with the noise tied to the window slot instead of the position."""

    def redraft(self, slots):
        slot = torch.arange(slots.positions.shape[1], device=slots.positions.device).expand_as(slots.positions)
        guesses = race(slots.target, slots.noise.exponential(slot, Purpose.SAMPLE, slots.target.shape[-1]))
        return torch.where(slot == slots.accepted[:, None], super().redraft(slots), guesses)


class BatchMinimum(SJDScheduler):
    """Cuts every row to the batch minimum; accepted drafts behind the cut stay, with their old law."""

    def step(self, probabilities, query, state, noise):
        slots = Slots(probabilities, query.token_ids[:, 1:], query.predicts, state, noise)
        keep, positions = super().accept(slots), slots.positions[:, :-1]
        old = state.laws.read(positions)
        self.kept = torch.arange(keep.shape[1], device=keep.device) < leading(keep)[:, None]
        state = super().step(probabilities, query, state, noise)
        state.laws.write(positions, torch.where(self.kept[..., None], old, probabilities[:, :-1]))
        return state

    def accept(self, slots):
        keep = super().accept(slots)
        return keep & (torch.arange(keep.shape[1], device=keep.device) < leading(keep).min())

    def redraft(self, slots):
        tokens = super().redraft(slots)
        tokens[:, :-1] = torch.where(self.kept, slots.drafts, tokens[:, :-1])
        return tokens


@pytest.mark.parametrize(
    "broken",
    [
        StaleLaw(window=3),
        ResampleTarget(window=3),
        SlotNoise(window=3, coupling="gumbel"),
        BatchMinimum(window=3),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_broken_twins_are_caught(pipe, broken):
    verdict = judge(pipe, broken, 2 * SAMPLES, seed=3)
    assert not verdict.passed, verdict
    assert verdict.total_variation > verdict.limit


def test_the_noise_floor_is_that_of_the_law_itself(pipe):
    law = image_law(pipe, **SAMPLING)
    images = torch.multinomial(law, SAMPLES, replacement=True, generator=torch.Generator().manual_seed(0))
    floor, limit = sampling_noise(law, SAMPLES, seed=1)
    assert 0.5 * floor < total_variation(images, law) < limit


def test_broken_seeded_jacobi_is_not_identical(pipe):
    class SlotSeeded(SeededJacobiScheduler):
        def choices(self, slots):
            slot = torch.arange(slots.positions.shape[1], device=slots.positions.device).expand_as(slots.positions)
            return race(slots.target, slots.noise.exponential(slot, Purpose.SAMPLE, slots.target.shape[-1]))

    reference, _ = draw(pipe, SCHEDULERS["autoregressive"](), 500, 0, **SAMPLING)
    images, _ = draw(pipe, SlotSeeded(window=3), 500, 0, **SAMPLING)
    assert (images != reference).float().mean() > 0.1


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_greedy_jacobi_claims_the_sequential_picture_at_temperature_zero_alone(pipe, temperature):
    greedy = temperature == 0
    verdict = judge(pipe, JacobiScheduler(window=2), 500, seed=0, temperature=temperature)
    assert verdict.label == ("exact" if greedy else "approximate")
    assert (verdict.identical == 1) == greedy
    assert verdict.passed
    output = pipe("a red dog", scheduler=JacobiScheduler(), temperature=temperature, output_type="latent")
    assert output.statistics.label == verdict.label


def test_a_claim_at_temperature_zero_is_judged_without_exception(pipe):
    class Sure(SJDScheduler):
        """Claims too much of temperature 1."""

        label, greedy_label = "exact", None

    assert not judge(pipe, Sure(window=3), 500, seed=0).passed
