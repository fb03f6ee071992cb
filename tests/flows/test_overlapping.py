"""Blocks side by side: exact where they say so, in fewer serial passes, final in order, whatever is fitted."""

import json
from itertools import pairwise

import pytest
import torch

from sjd_pipelines.flows import (
    FlowGuidance,
    FlowOverflowError,
    FlowTarget,
    FrontierFlowSolver,
    OverlappingFlowSolver,
    PlannedFlowSolver,
    SequentialFlowSolver,
    invert,
)
from sjd_pipelines.flows.correction import AffineGuess, CorrectionFit, LinearCorrection
from sjd_pipelines.flows.side_by_side import fitted_solver
from sjd_pipelines.flows.trials import worst_error

from .conftest import build_flow
from .test_solvers import LABELS, draw, noise


@pytest.fixture(scope="module")
def fitted(flow):
    return fitted_solver(FlowTarget(flow, LABELS.repeat(4).to(flow.device), 16), noise(flow, 16))


def random_corrections(strength, blocks=3, size=12):
    generator = torch.Generator().manual_seed(3)
    weights = [strength * torch.randn(4 * size, size, generator=generator) for _ in range(blocks)]
    return [LinearCorrection.of_weights(one).text() for one in weights]


@pytest.mark.parametrize("overlap", [0.0, 0.1, 100.0])
@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_overlapping_blocks_end_where_sequential_sampling_does(flow, fitted, overlap, scale):
    reference = draw(flow, SequentialFlowSolver(), guidance=FlowGuidance(scale))
    random = OverlappingFlowSolver(corrections=random_corrections(0.05))
    for own in (OverlappingFlowSolver(start="zeros"), fitted, random):
        solver = OverlappingFlowSolver.from_config(own.config, overlap=overlap)
        run = draw(flow, solver, guidance=FlowGuidance(scale))
        assert solver.label == "exact"
        assert worst_error(run.sample, reference.sample) < 5e-6
        assert [block.block for block in run.blocks] == [2, 1, 0]
        assert all(block.solved for block in run.blocks)


def test_a_change_of_the_last_patch_in_the_last_pass_reaches_the_next_block():
    """Every patch adds the one before it: each pass moves one, the last pass that which the next block begins with."""
    model = build_flow(num_classes=0, num_blocks=2)
    for parameter in model.parameters():
        parameter.zero_()
    for block in model.blocks:
        block.proj_in.weight[0, 0] = block.proj_out.weight[model.token_size, 0] = 1.0
    latents = torch.zeros(1, 16, 12)
    latents[0, 15, 0] = 1.0
    for tolerance in (1e-6, 0):
        run = draw(model, OverlappingFlowSolver(tolerance=tolerance, overlap=100), 1, latents=latents)
        assert torch.equal(run.sample[0, :, 0], torch.arange(1.0, 17))


def test_what_cannot_follow_waits_for_the_block_before(flow):
    reference = draw(flow, SequentialFlowSolver())
    for own in ("sequential", "flow-jacobi", "gauss-seidel-jacobi strategy=0/1-1-15-15", "frontier window=3"):
        solver = PlannedFlowSolver(plan=f"overlapping overlap=100; {own}; overlapping overlap=100")
        run = draw(flow, solver)
        assert worst_error(run.sample, reference.sample) < 5e-6
        assert (run.passes < sum(block.passes for block in run.blocks)) == own.startswith("frontier")
        assert solver.most_at_once(3) == (2 if own.startswith("frontier") else 1)


def test_serial_passes_count_blocks_side_by_side_once(flow):
    alone = draw(flow, FrontierFlowSolver(tolerance=1e-3))
    waiting = draw(flow, OverlappingFlowSolver(tolerance=1e-3, overlap=0))
    beside = draw(flow, OverlappingFlowSolver(tolerance=1e-3, overlap=100))
    sums = [sum(block.passes for block in run.blocks) for run in (alone, waiting, beside)]
    assert sums[0] == sums[1] == alone.passes == waiting.passes
    assert torch.equal(alone.sample, waiting.sample)
    assert max(block.passes for block in beside.blocks) < beside.passes < min(alone.passes, sums[2])
    counts = []
    draw(flow, OverlappingFlowSolver(overlap=100), on_pass=lambda run: counts.append(sum(run.solved)))
    assert counts == sorted(counts)
    assert counts[-1] == 4 * 3 * 16


def test_a_block_is_final_after_the_one_before(flow):
    """What a picture is in a block that has ended for it changes no more, nor does what that came from."""
    seen = {}

    def on_pass(run):
        pending = [work.state.pending for work in run.works]
        assert all(earlier <= later for earlier, later in pairwise(pending))
        for work in run.works:
            for row in set(range(4)) - work.state.pending:
                before = seen.setdefault((work.block, row), work.output[row].clone())
                assert torch.equal(work.output[row], before)
        return False

    latents = noise(flow, 4) * torch.tensor([0.05, 1.0, 0.3, 0.6], device=flow.device)[:, None, None]
    draw(flow, OverlappingFlowSolver(tolerance=1e-3, overlap=100), latents=latents, on_pass=on_pass)
    assert len(seen) >= 9


def test_a_run_of_overlapping_blocks_can_be_stopped(flow):
    run = draw(flow, OverlappingFlowSolver(overlap=100), on_pass=lambda run: len(run.works) == 2)
    assert [(block.block, block.solved) for block in run.blocks] == [(2, False), (1, False)]
    assert run.sample.isfinite().all()


def test_what_is_fitted_saves_passes(flow, fitted):
    """On noise that it has not seen."""
    latents, target = noise(flow, 20)[16:], FlowTarget(flow, LABELS.to(flow.device), 4)
    plain = OverlappingFlowSolver(tolerance=1e-3, overlap=0)
    own = OverlappingFlowSolver.from_config(fitted.config, tolerance=1e-3, overlap=0)
    passes = [sum(sum(block.row_passes) for block in invert(target, one, latents).blocks) for one in (plain, own)]
    assert passes[1] < passes[0]


def test_an_affine_flow_is_guessed():
    generator = torch.Generator().manual_seed(0)
    latents, offset = torch.randn(50, 4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    guess = AffineGuess.fitted(latents, 0.5 * latents + offset)
    torch.testing.assert_close(guess(latents), 0.5 * latents + offset)


def test_a_linear_flow_is_corrected_in_one_pass():
    """Changes that travel to the next patch alone are foretold by its neighbours."""
    generator = torch.Generator().manual_seed(0)
    true, fit = 0.3 * torch.randn(8, 2, generator=generator), CorrectionFit(2)
    change = torch.randn(3, 16, 2, generator=generator)
    correction = LinearCorrection.of_weights(true)
    missing = correction(change, -1, 16)
    fit.add(change, missing)
    torch.testing.assert_close(fit.solved().kernel, correction.kernel, atol=5e-3, rtol=0)
    one = torch.zeros(1, 16, 2)
    one[0, 5, 0] = 1.0  # row 1, column 1: seen by (1, 2), (2, 0), (2, 1), (2, 2)
    assert sorted(set(correction(one, -1, 16)[0].nonzero()[:, 0].tolist())) == [6, 8, 9, 10]
    late = correction(change[:, 7:], 6, 16)
    inside = torch.cat([torch.zeros(3, 7, 2), change[:, 7:]], 1)
    torch.testing.assert_close(late, correction(inside, -1, 16)[:, 7:])


def test_what_is_fitted_survives_text_and_a_folder(tmp_path, fitted):
    corrections, guesses = fitted.config.corrections, fitted.config.guesses
    assert LinearCorrection.read(corrections[0]).text() == corrections[0]
    assert AffineGuess.read(guesses[0]).text() == guesses[0]
    solver = OverlappingFlowSolver.from_config(fitted.config, tolerance=1e-3)
    solver.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "scheduler_config.json").read_text())["corrections"] == corrections
    loaded = OverlappingFlowSolver.from_pretrained(tmp_path)
    assert torch.equal(loaded.corrections[2].kernel, solver.corrections[2].kernel)
    assert torch.equal(loaded.guesses[2].offset, solver.guesses[2].offset)
    assert FrontierFlowSolver.from_config(loaded.config).config.tolerance == 1e-3


@pytest.mark.parametrize("corrections", [["abc"], ["?"], [3], [""], random_corrections(float("nan"), 1), "x", 5])
def test_corrections_that_are_none_are_refused(corrections):
    with pytest.raises(ValueError, match=r"^corrections"):
        OverlappingFlowSolver(corrections=corrections)
    with pytest.raises(ValueError, match=r"^guesses"):
        OverlappingFlowSolver(guesses=corrections)


def test_corrections_of_another_flow_are_refused(flow):
    with pytest.raises(ValueError, match="corrections are of 2 blocks; this flow has 3"):
        draw(flow, OverlappingFlowSolver(corrections=random_corrections(0.1, blocks=2)))
    with pytest.raises(ValueError, match="corrections are of patches of 3; this flow has 12"):
        draw(flow, OverlappingFlowSolver(corrections=random_corrections(0.1, size=3)))
    guess = AffineGuess(torch.ones(12), torch.zeros(9, 12)).text()
    with pytest.raises(ValueError, match="guesses are of patches of 9 x 12; this flow has 16 x 12"):
        draw(flow, OverlappingFlowSolver(guesses=[guess] * 3))


def test_corrections_that_explode_are_overcome(flow):
    reference = draw(flow, SequentialFlowSolver())
    run = draw(flow, OverlappingFlowSolver(tolerance=0, corrections=random_corrections(50.0)))
    assert worst_error(run.sample, reference.sample) < 1e-4


def test_overflow_is_an_error_side_by_side():
    model = build_flow(gain=100.0)
    with pytest.raises(FlowOverflowError, match="The flow overflows"):
        draw(model, OverlappingFlowSolver(overlap=100))


def test_what_calibration_measured_is_known_of_these_settings_alone():
    measured = {"plan": "overlapping tolerance=0.001", "error": 4e-4, "conditions": {"dtype": "float32"}}
    solver = OverlappingFlowSolver(tolerance=1e-3, measured=measured)
    assert (solver.error_at({"dtype": "float32"}), solver.error_at({"dtype": "float16"})) == (4e-4, None)
    assert OverlappingFlowSolver.from_config(solver.config, tolerance=1e-2).error_at({"dtype": "float32"}) is None
