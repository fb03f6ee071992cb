"""The nodes of flows: the bundled flow where a picture matters, a random toy elsewhere."""

import json
from dataclasses import replace

import pytest
import torch

from sjd_pipelines import FLOW_SOLVERS, TarFlowPipeline
from sjd_pipelines.declaration import settings_of
from sjd_pipelines.emoji.flow_judge import score_pictures
from sjd_pipelines.flows.planned import text_of
from sjd_pipelines.flows.side_by_side import FITTED
from sjd_pipelines.models.tarflow import FlowCache
from sjd_pipelines.pipelines.graphs import picture_seeds


@pytest.fixture
def sample(run, toy_flow):
    """Draw with the toy: patches, text, steps."""

    def draw(**values):
        return run("SJDFlowSampler", **{"flow": toy_flow, "class_name": "dog"} | values)

    return draw


@pytest.fixture
def solver(nodes, run):
    """A solver by its registered name, with its defaults and what is given."""
    node_ids = {getattr(node, "solver", None): node_id for node_id, node in nodes.items()}

    def make(name, **values):
        return run(node_ids[name], **values)[0]

    return make


def test_the_bundled_flow_draws_what_the_library_draws(run, nodes, solver):
    (flow,) = run("SJDFlowLoader", dtype="fp32")
    loose = solver("frontier", tolerance=1e-2)
    patches, text, steps = run("SJDFlowSampler", flow=flow, seed=3, solver=loose)
    (image,) = run("SJDFlowDecode", flow=flow, patches=patches)
    assert (image.shape, image.dtype) == ((1, 32, 32, 3), torch.float32)
    pipe = TarFlowPipeline.from_pretrained("emoji-flow")
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    expected = pipe("penguin", generator=generator, output_type="pt", scheduler=loose.make())
    torch.testing.assert_close(image.movedim(-1, 1), expected.images)
    assert score_pictures(expected.images, torch.tensor([pipe.class_names().index("penguin")]))["object"] == 1
    assert steps == expected.statistics.forward_passes < 100
    assert text.startswith(f"frontier: approximate\n{steps} passes, one patch after the other takes 1020; ")


@pytest.mark.parametrize("name", [name for name in FLOW_SOLVERS if name not in ("planned", "gauss-seidel-jacobi")])
def test_every_solver_draws(sample, solver, name):
    patches, text, steps = sample(solver=solver(name), batch_size=2)
    assert text.startswith(f"{name}: exact\n")
    reference, _, most = sample(solver=solver("sequential"), batch_size=2)
    torch.testing.assert_close(patches.values, reference.values, atol=1e-5, rtol=0)
    assert (steps <= most, most) == (True, 30)


def test_every_solver_has_a_node_with_its_settings(nodes):
    made = {node.solver: node.define_schema() for node in nodes.values() if hasattr(node, "solver")}
    assert list(made) == list(FLOW_SOLVERS)
    for name, schema in made.items():
        starts = {one.id: None if one.default in (-1, "") else one.default for one in schema.inputs}
        assert starts == {key: setting.default for key, setting in settings_of(FLOW_SOLVERS[name]).items()}
        assert schema.category == "SJD/solvers"


def test_a_calibrated_plan_draws_and_is_told_as_text(run, toy_flow, sample, solver, server):
    server.updates.clear()
    server.loaded.clear()
    values = {"flow": toy_flow, "mode": "fast", "objective": "passes", "batch_size": 2}
    plan, text = run("SJDFlowCalibrate", **values)
    assert [value for value, _, _ in server.updates] == [1, 2]
    patches, words, steps = sample(solver=plan, batch_size=2)
    assert server.loaded[0][1] > FITTED * server.loaded[1][1] / 4  # pictures that a solver is fitted on, beside two
    assert "measured error" in words
    assert text == text_of(plan.make())
    again, _, same = sample(solver=replace(plan, settings=json.loads(json.dumps(plan.settings))), batch_size=2)
    assert torch.equal(again.values, patches.values)
    assert same == steps
    entries = "; ".join(["frontier tolerance=0.01"] * 2)
    assert "measured error" not in sample(solver=solver("planned", plan=entries), batch_size=2)[1]


def test_a_bad_setting_is_told_on_the_solver(solver):
    with pytest.raises(ValueError, match=r"plan: a solver must be one of .*; got 'newton'"):
        solver("planned", plan="newton")
    with pytest.raises(ValueError, match="strategy must be a text such as"):
        solver("gauss-seidel-jacobi", strategy="all")
    assert solver("frontier", window=-1).settings["window"] is None
    assert solver("gauss-seidel-jacobi", starts="").settings["starts"] is None


def test_classes_seeds_and_guidance(sample):
    batch, _, _ = sample(seed=7, batch_size=3)
    _, _, third = picture_seeds(7, 3)
    alone, words, _ = sample(seed=third)
    assert words.endswith(f"\nseeds {third}")
    torch.testing.assert_close(batch.values[2:], alone.values, atol=1e-5, rtol=0)
    assert torch.equal(sample(class_name="1")[0].values, sample()[0].values)
    assert sample(class_name=" ")[0].labels == [-1]
    assert torch.equal(sample(guidance=0.5)[0].values, sample()[0].values)
    assert not torch.equal(sample(guidance=0.0)[0].values, sample()[0].values)
    with pytest.raises(ValueError, match=r"by name \(cat, dog, red fox\); got 'lemon'\."):
        sample(class_name="lemon")


def test_progress_and_cancel(sample, server, solver, toy_flow):
    own = toy_flow.pipe.scheduler
    sample(batch_size=2)
    values = [value for value, _, _ in server.updates]
    assert values == sorted(values)
    assert values[-1] == 2 * 2 * 16
    sequential = solver("sequential")
    server.updates.clear()
    server.cancel_at = 7
    with pytest.raises(server.Interrupt):
        sample(solver=sequential)
    assert server.updates[-1][0] == 7
    assert toy_flow.pipe.scheduler is own


def test_patches_of_another_flow_are_refused(run, sample):
    (flow,) = run("SJDFlowLoader", dtype="fp32")
    with pytest.raises(ValueError, match="connect the one that drew them"):
        run("SJDFlowDecode", flow=flow, patches=sample()[0])


def test_flows_draw_in_inference_mode(nodes):
    """As ComfyUI runs every node."""
    with torch.inference_mode():
        (flow,) = nodes["SJDFlowLoader"].execute("toy-flow", "fp32").args
        patches, *_ = nodes["SJDFlowSampler"].execute(flow, "dog", 1, 1, -1).args
        (image,) = nodes["SJDFlowDecode"].execute(flow, patches, 0.5).args
    assert image.shape == (1, 8, 8, 3)


def test_denoising(run, toy_flow, sample):
    patches, _, _ = sample()
    images = [run("SJDFlowDecode", flow=toy_flow, patches=patches, denoise=value)[0] for value in (-1, 1.0, 0.0)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])


def test_loaders_list_their_own_kind(nodes):
    flows, others = (
        next(one for one in nodes[name].define_schema().inputs if one.id == "model").options
        for name in ("SJDFlowLoader", "SJDModelLoader")
    )
    assert flows == ["emoji-flow", "toy-flow"]
    assert not set(flows) & set(others)
    with pytest.raises(ValueError, match=r"a bundled one \(emoji-flow\), .* a model_index\.json of a TarFlowPipeline"):
        nodes["SJDFlowLoader"].validate_inputs("toy")
    assert nodes["SJDFlowLoader"].validate_inputs("toy-flow") is True
    with pytest.raises(ValueError, match="no model 'emoji-flow'"):
        nodes["SJDModelLoader"].validate_inputs("emoji-flow")
    assert nodes["SJDFlowLoader"].fingerprint_inputs("emoji-flow", "auto") == "emoji-flow auto []"


def test_memory_is_asked_for(sample, solver, server, toy_flow):
    server.loaded.clear()
    sample()
    sample(batch_size=2)
    sample(solver=solver("overlapping", overlap=100))
    needs = [need for patcher, need in server.loaded if patcher is toy_flow.patcher]
    assert needs[1] == 2 * needs[0] > 0
    cache = FlowCache(2, 2, 2, 16, 16)
    assert needs[2] == needs[0] + sum(layer.nbytes for layer in cache.layers)  # of the block that goes on beside
    with pytest.raises(torch.OutOfMemoryError, match="Out of memory: lower batch_size, or load"), toy_flow.ready(0):
        raise torch.OutOfMemoryError("tried to allocate 9 GiB")
