"""Solvers against sequential sampling: exact where they say so, in as many passes as theory allows, in any batch."""

import json

import numpy as np
import pytest
import torch

from sjd_pipelines.flows import (
    FlowGuidance,
    FlowOverflowError,
    FlowTarget,
    FrontierFlowSolver,
    GaussSeidelJacobiFlowSolver,
    JacobiFlowSolver,
    OverlappingFlowSolver,
    PlannedFlowSolver,
    SequentialFlowSolver,
    invert,
    normal_noise,
)
from sjd_pipelines.flows.planned import entry_of
from sjd_pipelines.flows.state import SETTLED
from sjd_pipelines.flows.trials import worst_error

from .conftest import build_flow, pictures

LABELS = torch.tensor([0, 2, -1, 1])
PLAN = "frontier start=zeros; flow-jacobi max_iterations=15 tolerance=0; sequential"
EXACT_PLAN = "frontier tolerance=1e-06 start=zeros; flow-jacobi; sequential"
EXACT = [
    SequentialFlowSolver(),
    JacobiFlowSolver(),
    JacobiFlowSolver(tolerance=0, start="zeros"),
    FrontierFlowSolver(),
    FrontierFlowSolver(start="zeros"),
    FrontierFlowSolver(window=1),
    FrontierFlowSolver(window=5),
    PlannedFlowSolver(plan=EXACT_PLAN),
]


def draw(model, solver, rows=4, guidance=None, latents=None, **options):
    """A run for the first of `LABELS`."""
    if latents is None:
        latents = noise(model, rows)
    labels = LABELS[:rows].to(model.device) if model.config.num_classes else None
    return invert(FlowTarget(model, labels, rows, guidance), solver, latents, **options)


def noise(model, rows):
    return normal_noise(list(range(rows)), model.num_tokens, model.token_size).to(model.device, model.dtype)


@pytest.mark.parametrize("solver", EXACT, ids=lambda solver: solver.name)
@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_exact_solvers_end_where_sequential_sampling_does(flow, solver, scale):
    assert solver.label == "exact"
    reference = draw(flow, SequentialFlowSolver(), guidance=FlowGuidance(scale))
    run = draw(flow, solver, guidance=FlowGuidance(scale))
    assert worst_error(run.sample, reference.sample) < 5e-6
    assert all(block.passes <= 15 and block.solved for block in run.blocks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sampling_inverts_encoding(dtype):
    model = build_flow(dtype, gain=0.02)
    pixels, labels = pictures(4, dtype), LABELS
    latents = model.encode(pixels, labels).latents
    for solver in (SequentialFlowSolver(), JacobiFlowSolver(tolerance=0), FrontierFlowSolver(tolerance=0)):
        run = invert(FlowTarget(model, labels, 4), solver, latents)
        difference = (model.unpatchify(run.sample) - pixels).abs().max()
        assert difference < (1e-5 if dtype == torch.float32 else 1e-12)


def test_sequential_takes_one_pass_per_token(flow):
    run = draw(flow, SequentialFlowSolver())
    assert [block.passes for block in run.blocks] == [15, 15, 15]
    assert [block.block for block in run.blocks] == [2, 1, 0]
    assert [block.token_passes for block in run.blocks] == [60, 60, 60]
    assert run.blocks[0].residual is None


def test_values_beyond_three_are_not_clamped():
    model = build_flow(gain=0.02)
    for block in model.blocks:
        block.proj_out.bias[: model.token_size] = 0.4  # scales of 1.5 in every block
    reference = draw(model, SequentialFlowSolver())
    assert max(output.abs().max() for output in reference.outputs) > 8
    segments = GaussSeidelJacobiFlowSolver(strategy="0/1/2-2-8-15", tolerance=0)
    for solver in (JacobiFlowSolver(), FrontierFlowSolver(), segments):
        assert worst_error(draw(model, solver).sample, reference.sample) < 5e-6


def test_gauss_seidel_with_all_its_passes_is_exact(flow):
    reference = draw(flow, SequentialFlowSolver())
    solver = GaussSeidelJacobiFlowSolver(strategy="0/2-4/8-4/2-15", starts="1/0/1", tolerance=0)
    run = draw(flow, solver)
    assert [block.passes for block in run.blocks] == [15, 15, 15]
    assert worst_error(run.sample, reference.sample) < 5e-6
    few = draw(flow, GaussSeidelJacobiFlowSolver(strategy="2-4-2-3"))
    assert [block.passes for block in few.blocks] == [8, 3, 3]
    assert few.blocks[0].token_passes == 4 * 2 * 15
    assert worst_error(few.sample, reference.sample) > 1e-3


@pytest.mark.parametrize(
    ("strategy", "passes"),
    [("6-8-32-10", 326), ("7-8-32-10", 326), ("0/6-8-32-20", 632), ("0/7-256/8-1/13-6", 396)],
)
def test_published_strategies_count_as_published(strategy, passes):
    solver = GaussSeidelJacobiFlowSolver(strategy=strategy)
    solver.check(8, 1024)
    counts = [solver.strategy.of_block(block) for block in range(8)]
    assert sum(segments * limit for segments, limit in counts) == passes
    assert solver.label == "approximate"


def test_looser_tolerances_take_fewer_passes_and_err_more(flow):
    reference = draw(flow, SequentialFlowSolver())
    runs = [draw(flow, FrontierFlowSolver(tolerance=tolerance)) for tolerance in (1e-6, 1e-3, 1e-1)]
    errors = [worst_error(run.sample, reference.sample) for run in runs]
    passes = [sum(block.passes for block in run.blocks) for run in runs]
    assert errors == sorted(errors)
    assert passes == sorted(passes, reverse=True)
    assert passes[0] > passes[-1]
    assert 1e-5 < errors[1] < 1e-2
    assert all(block.residual <= 1e-1 for block in runs[2].blocks if block.passes < 15)
    assert FrontierFlowSolver(tolerance=1e-3).label == "approximate"
    assert JacobiFlowSolver(max_iterations=3).label == "approximate"


def test_the_settled_prefix_leaves_the_passes(flow):
    jacobi, frontier = draw(flow, JacobiFlowSolver(tolerance=0)), draw(flow, FrontierFlowSolver(tolerance=0))
    assert sum(b.token_passes for b in frontier.blocks) < 0.6 * sum(b.token_passes for b in jacobi.blocks)


@pytest.mark.parametrize(
    "solver",
    [
        FrontierFlowSolver(tolerance=1e-3),
        JacobiFlowSolver(tolerance=1e-3),
        FrontierFlowSolver(tolerance=1e-3, window=12),
    ],
)
def test_pictures_stop_on_their_own(flow, solver):
    """A picture takes as many passes in a batch as alone, and does not change there."""
    scale = FlowGuidance(0.5)
    latents = noise(flow, 4) * torch.tensor([0.05, 1.0, 0.3, 0.6], device=flow.device)[:, None, None]
    together = draw(flow, solver, guidance=scale, latents=latents)
    for row in range(4):
        target = FlowTarget(flow, LABELS[row : row + 1].to(flow.device), 1, scale)
        alone = invert(target, solver, latents[row : row + 1])
        passes = [block.row_passes[0] for block in alone.blocks]
        assert passes == [block.row_passes[row] for block in together.blocks]
        assert worst_error(together.sample[row : row + 1], alone.sample) < 2e-3
    assert any(len(set(block.row_passes)) > 1 for block in together.blocks)


def test_each_pass_is_told(flow):
    counts = []
    run = draw(flow, FrontierFlowSolver(), on_pass=lambda run: counts.append((run.block, sum(run.state.solved))))
    assert len(counts) == sum(block.passes for block in run.blocks)
    for block in (0, 1, 2):
        own = [count for index, count in counts if index == block]
        assert own == sorted(own)
        assert own[-1] == 4 * 16


def test_a_run_can_be_stopped(flow):
    run = draw(flow, FrontierFlowSolver(window=2), on_pass=lambda run: run.block == 1)
    assert [(block.block, block.passes > 1, block.solved) for block in run.blocks] == [
        (2, True, True),
        (1, False, False),
    ]
    assert run.sample.isfinite().all()


@pytest.mark.parametrize("solver", EXACT, ids=lambda solver: solver.name)
def test_overflow_is_an_error(solver):
    model = build_flow(gain=100.0)
    with pytest.raises(FlowOverflowError, match="The flow overflows"):
        draw(model, solver)


def test_an_overflow_on_the_way_is_none_in_the_end():
    """The log scale of a token is the first number of the token before: exp(1000) at first, exp(2e-6) in the end."""
    model = build_flow(num_classes=0, num_blocks=1)
    for parameter in model.parameters():
        parameter.zero_()
    model.blocks[0].proj_in.weight[0, 0] = model.blocks[0].proj_out.weight[0, 0] = 1.0
    latents = torch.zeros(1, 16, 12)
    latents[0, 7:10, 0] = torch.tensor([-20.0, 1000.0, 1.0])
    reference = draw(model, SequentialFlowSolver(), 1, latents=latents)
    assert reference.sample[0, 9, 0] == pytest.approx(1.0, abs=1e-5)
    for solver in (JacobiFlowSolver(), FrontierFlowSolver(), GaussSeidelJacobiFlowSolver(strategy="0-2-8-9")):
        run = draw(model, solver, 1, latents=latents)
        assert worst_error(run.sample, reference.sample) < 1e-6


def own_settings(solver):
    return {name: value for name, value in solver.config.items() if not name.startswith("_")}


def test_settings_survive_a_folder(tmp_path):
    for solver in (
        FrontierFlowSolver(tolerance=1e-3, window=7, start="zeros"),
        GaussSeidelJacobiFlowSolver(strategy="0-2-3-4", starts="0/1"),
        PlannedFlowSolver(plan=PLAN, measured={"plan": PLAN, "error": 1e-3, "conditions": {"guidance": None}}),
    ):
        solver.save_pretrained(tmp_path / solver.name)
        saved = json.loads((tmp_path / solver.name / "scheduler_config.json").read_text())
        again = type(solver).from_pretrained(tmp_path / solver.name)
        assert own_settings(again) == own_settings(solver)
        assert saved["_class_name"] == type(solver).__name__
    other = JacobiFlowSolver.from_config(FrontierFlowSolver(tolerance=1e-3, window=7, start="zeros").config)
    assert (other.config.tolerance, other.config.start) == (1e-3, "zeros")
    assert FrontierFlowSolver in FrontierFlowSolver().compatibles


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (GaussSeidelJacobiFlowSolver(strategy="3-8-2-3"), "strategy names block 3; this flow has blocks 0 to 2"),
        (GaussSeidelJacobiFlowSolver(strategy="0-3-2-3"), "strategy cuts 16 tokens into 3 segments"),
        (
            GaussSeidelJacobiFlowSolver(strategy="0-4-2-3", starts="0/1"),
            "starts has 2 entries; this flow has 3 blocks",
        ),
        (PlannedFlowSolver(), "The plan has 0 blocks; this flow has 3. Make one with calibrate"),
        (PlannedFlowSolver(plan="sequential; frontier"), "The plan has 2 blocks; this flow has 3"),
        (PlannedFlowSolver(plan="; ".join(["gauss-seidel-jacobi strategy=0-3-2-3"] * 3)), "into 3 segments"),
    ],
)
def test_settings_that_do_not_fit_the_flow_are_refused(flow, solver, message):
    with pytest.raises(ValueError, match=message):
        draw(flow, solver)


def test_an_error_is_that_of_the_plan_and_what_it_was_measured_under(flow):
    def conditions(*guidance, model=flow):
        return FlowTarget(model, LABELS, 4, FlowGuidance(*guidance)).conditions

    measured = {"plan": PLAN, "error": 1e-3, "conditions": json.loads(json.dumps(conditions(2.0)))}
    solver = PlannedFlowSolver(plan=PLAN, measured=measured)
    assert solver.label == "approximate"
    assert PlannedFlowSolver(plan=EXACT_PLAN).label == "exact"
    assert solver.error_at(conditions(2)) == 1e-3
    others = [conditions(1.5), conditions(2.0, False), conditions(2.0, True, "scale"), conditions(0.0)]
    others += [conditions(2.0, model=build_flow(gain=0.05)), conditions(2.0, model=build_flow(torch.bfloat16))]
    assert [solver.error_at(other) for other in others] == [None] * 6
    assert conditions(0.0, False, "scale") == conditions()
    assert PlannedFlowSolver.from_config(solver.config, plan=EXACT_PLAN).error_at(conditions(2.0)) is None
    assert SequentialFlowSolver().error_at(conditions(2.0)) is None


@pytest.mark.parametrize("measured", [3, "0.1", [1], {}, {"error": "small"}, {"error": -1}, {"error": float("nan")}])
@pytest.mark.parametrize("cls", [PlannedFlowSolver, OverlappingFlowSolver])
def test_a_record_that_is_none_is_refused(cls, measured):
    with pytest.raises(ValueError, match=r"^measured must be the record that calibrate\(\) made, or None; got "):
        cls(measured=measured)


def test_plans_are_text_that_reads_back():
    solver = PlannedFlowSolver(plan=" frontier  tolerance=0.5e-3 window=none;sequential ;flow-jacobi max_iterations=3")
    assert [own_settings(one) for one in solver.solvers[:2]] == [
        {"tolerance": 5e-4, "window": None, "start": "latents"},
        {},
    ]
    entries = [entry_of(one) for one in solver.solvers]
    assert entries == ["frontier tolerance=0.0005", "sequential", "flow-jacobi max_iterations=3"]
    again = PlannedFlowSolver(plan="; ".join(entries))
    assert [own_settings(one) for one in again.solvers] == [own_settings(one) for one in solver.solvers]


def test_what_only_rounds_is_done(flow):
    """Changes that stay at the level of rounding end a block at any tolerance but 0, in a few passes."""
    changes = {"rounding": [2e-5, 1e-5, 3e-5], "falling": [1e-2, 2e-5, 1e-5], "large": [1e-3, 1e-3, 1e-3]}
    for name, values in changes.items():
        state = FrontierFlowSolver().begin(0, 1, noise(flow, 1))
        for value in values:
            change = np.full((1, 15), value, np.float32)
            state.observe(change)
        assert state.moves(change, 1e-6).any() == (name != "rounding")
        assert state.moves(change, 0).all()
        assert not state.moves(change, 1e-2).any()
        assert state.moves(change, 1e-6, SETTLED).all()
    state.observe(np.full((1, 15), np.nan, np.float32))
    assert state.moves(np.full((1, 15), np.nan, np.float32), 1.0).all()


def test_a_flow_that_rounds_strongly_is_solved_as_exactly_as_sequentially():
    """Large hidden numbers that cancel: rounding lies far above the tolerance, which no change would ever reach."""
    model = build_flow(gain=0.04, num_classes=0)
    with torch.no_grad():
        for block in model.blocks:
            block.proj_in.bias += 60.0
            block.proj_out.bias -= block.proj_out.weight.sum(1) * 60.0
    reference = draw(model, SequentialFlowSolver())
    alone = invert(FlowTarget(model, None, 1), SequentialFlowSolver(), noise(model, 4)[:1])
    rounding = worst_error(alone.sample, reference.sample[:1])
    for solver in (FrontierFlowSolver(), JacobiFlowSolver()):
        assert worst_error(draw(model, solver).sample, reference.sample) < 20 * max(rounding, 2e-6)
