"""Plans: under their bound on noise they have not seen, cheaper than sequential, the paper's numbers beside them."""

import json

import pytest
import torch

from sjd_pipelines.flows import (
    MODES,
    ConvergenceMetrics,
    FlowGuidance,
    FlowTarget,
    SequentialFlowSolver,
    calibrate,
    convergence_metrics,
    invert,
    normal_noise,
)
from sjd_pipelines.flows.planned import text_of
from sjd_pipelines.flows.side_by_side import fitted_solver
from sjd_pipelines.flows.trials import Calibrator, worst_error

from .conftest import build_flow


def plan_for(model, mode, objective, batch_size, **options):
    labels = torch.arange(batch_size, device=model.device) % 3

    def target_of(index):
        return FlowTarget(model, labels, batch_size, FlowGuidance(0.5))

    def noise_of(first, count):
        return normal_noise(list(range(first, first + count)), 16, 12).to(model.device, model.dtype)

    with torch.no_grad():
        examples = FlowTarget(model, torch.arange(12, device=model.device) % 3, 12, FlowGuidance(0.5))
        fitted = fitted_solver(examples, noise_of(1000, 12))
    return calibrate(target_of, noise_of, lambda: fitted, mode, objective, batch_size, references=2, **options)


def test_rounding_is_that_of_every_picture_alone_too(flow):
    """Quarters of a large batch may round as the batch does, where a picture alone is computed by other kernels."""
    latents = normal_noise(list(range(16)), 16, 12).to(flow.device, flow.dtype)
    target = FlowTarget(flow, torch.arange(16, device=flow.device) % 3, 16, FlowGuidance(0.5))
    with torch.no_grad():
        calibrator = Calibrator(lambda index: target, latents, 16, repeats=1)
        moved = []
        for row in range(16):
            alone = FlowTarget(flow, target.labels[row : row + 1], 1, FlowGuidance(0.5))
            sample = invert(alone, SequentialFlowSolver(), latents[row : row + 1]).sample
            moved.append(worst_error(sample, calibrator.runs[0].sample[row : row + 1]))
        assert calibrator.rounding() >= max(moved) > 0


@pytest.fixture(scope="module")
def plans(flow):
    return {mode: plan_for(flow, mode, "passes", 2) for mode in MODES}


@pytest.mark.parametrize(("mode", "bound"), [("exact", 2e-6), ("safe", 1e-3), ("fast", 1e-2)])
def test_plans_hold_their_bound_in_fewer_passes(flow, plans, mode, bound):
    found = plans[mode]
    assert found.planned.error <= found.bound
    if mode != "exact" or flow.device.type == "cpu":  # elsewhere sequential sampling may round more than that
        assert found.bound <= bound
    assert found.planned.passes < found.sequential.passes == 45
    assert found.solver.label == ("exact" if mode == "exact" else "approximate")
    conditions = FlowTarget(flow, None, 2, FlowGuidance(0.5)).conditions
    assert found.solver.error_at(conditions) == found.planned.error
    latents, labels = normal_noise([77, 78], 16, 12).float().to(flow.device), torch.arange(2, device=flow.device)
    runs = [
        invert(FlowTarget(flow, labels, 2, FlowGuidance(0.5)), solver, latents)
        for solver in (SequentialFlowSolver(), found.solver)
    ]
    assert worst_error(runs[1].sample, runs[0].sample) < 2 * found.bound


def test_looser_modes_save_more(plans):
    exact, fast = plans["exact"].planned, plans["fast"].planned
    assert fast.passes < exact.passes
    assert fast.token_passes < exact.token_passes


def test_a_plan_is_told_and_saved(tmp_path):
    told = []
    found = plan_for(
        build_flow(num_blocks=1), "safe", "seconds", 1, on_block=lambda block, trials: told.append((block, trials))
    )
    assert [block for block, _ in told] == [0]
    for (_, trials), chosen in zip(told, found.chosen):
        assert chosen in trials
        assert chosen.seconds == min(t.seconds for t in trials if t.error <= chosen.error)
        assert {trial.entry.split()[0] for trial in trials} == {"sequential", "frontier"}
    found.solver.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert saved["measured"]["mode"] == "safe"
    again = type(found.solver).from_pretrained(tmp_path)  # a plan, or blocks side by side where those were faster
    assert text_of(again) == text_of(found.solver) == saved["measured"]["plan"]
    assert again.error_at(saved["measured"]["conditions"]) == found.planned.error
    table = str(found)
    assert "CRM %" in table
    assert "gauss-seidel-jacobi strategy=" in table
    assert table.count("\n") == 4


def test_a_flow_that_nothing_shortens_is_left_sequential():
    """Every token is a large multiple of the one before: whatever is not exact is far off."""
    model = build_flow(num_classes=0, num_blocks=1)
    for parameter in model.parameters():
        parameter.zero_()
    block = model.blocks[0]
    for channel in range(12):
        block.proj_in.weight[channel, channel] = 1.0
        block.proj_out.weight[12 + channel, channel] = 2.0
    found = plan_for(model, "exact", "passes", 1)
    assert found.chosen[0].passes == 15
    assert found.planned.error <= 1e-6


def test_published_choices_follow_from_published_metrics():
    """CRM in percent as published with the paper, and the blocks its authors cut."""
    published = {
        (5.2, 5.6, 2.5, 10.9, 7.7, 7.4, 56.6, 4.1): [6],
        (6.3, 6.3, 8.2, 7.9, 9.0, 10.3, 9.4, 42.6): [7],
        (50.7, 2.4, 2.3, 3.4, 1.8, 1.3, 33.6, 4.4): [0, 6],
        (74.6, 4.9, 0.7, 1.0, 4.1, 2.7, 1.6, 10.5): [0, 7],
    }
    for crm, blocks in published.items():
        metrics = ConvergenceMetrics(
            list(crm), [{"latents": 1.0, "zeros": 2.0}] * 7 + [{"latents": 2.0, "zeros": 1.0}]
        )
        assert metrics.dominant == blocks
        assert metrics.starts() == "1/0/0/0/0/0/0/0"
    assert ConvergenceMetrics(list(crm), []).strategy(1024) == "0/7-8-32-10"
    assert ConvergenceMetrics([1.0, 1.0], []).strategy(63) == "0-7-2-4"


def test_metrics_of_a_block_that_does_nothing(wide_flow):
    """Without scales and shifts a block is solved at its latents; CRM is the norm of the weights it has left."""
    model = build_flow(torch.float64)
    for block in (0, 2):
        model.blocks[block].proj_out.weight.zero_()
        model.blocks[block].proj_out.bias.zero_()
    model.blocks[2].proj_out.weight[12, 0] = 3.0  # one shift: the norm of the lower half is 3
    pixels = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    metrics = convergence_metrics(model, pixels)
    assert metrics.igm[0]["latents"] == pytest.approx(0, abs=1e-9)
    assert metrics.igm[1]["latents"] > 1e-3
    assert metrics.crm[0] == 0
    assert sum(metrics.crm) == pytest.approx(100)


def test_unknown_words_are_refused(flow):
    with pytest.raises(ValueError, match="mode must be one of exact, safe, fast; got 'quick'"):
        plan_for(flow, "quick", "passes", 1)
    with pytest.raises(ValueError, match="objective must be one of passes, seconds; got 'tokens'"):
        plan_for(flow, "safe", "tokens", 1)
