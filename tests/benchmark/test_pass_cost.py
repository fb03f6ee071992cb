"""The cost of a pass: the command on a toy, and the shapes it is made for on the meta device."""

import json

import pytest
import torch

from sjd_pipelines.benchmark.journal import Journal
from sjd_pipelines.benchmark.pass_cost import (
    EXECUTIONS,
    SHAPES,
    measure_pass_costs,
    shape_pipeline,
    ways_of,
    weight_bytes,
)
from sjd_pipelines.benchmark.toy import toy_par_pipeline
from sjd_pipelines.cli import main
from sjd_pipelines.cli.pass_cost import EXECUTIONS as WAYS
from sjd_pipelines.cli.pass_cost import SHAPES as OFFERED
from sjd_pipelines.decoding.runner import Execution
from sjd_pipelines.pipelines import compiling


def test_every_window_is_measured(tmp_path, capsys):
    file = tmp_path / "cost.json"
    command = ["pass-cost", "--shape", "toy", "--windows", "1,3", "--dtype", "float32", "--device", "cpu"]
    assert main([*command, "--passes", "2", "--execution", "written", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["command"].startswith("sjd pass-cost --shape toy")
    assert [cost["window"] for cost in report["costs"]] == [0, 1, 3]
    assert report["floor"] == pytest.approx(1000 * report["weight_bytes"] / report["bandwidth"])
    for cost in report["costs"]:
        assert len(cost["samples"]) == 2
        assert cost["floors"] == pytest.approx(cost["milliseconds"] / report["floor"])
        assert cost["transformer"] > 0
        assert (cost["execution"], cost["warm_up"], cost["graph_bytes"]) == ("written", 0, 0)
        assert cost["ran"] == {"written": 5}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("toy, float32, cpu: 0.1 MiB of weights per pass")
    assert [line.split()[0] for line in lines[-3:]] == ["sequential", "window", "window"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor uses it
def test_compiled_passes_are_measured():
    report = measure_pass_costs("toy", [2], torch.float32, passes=6, executions=["written", "compiled"])
    assert [(cost.window, cost.execution) for cost in report.costs] == [
        (window, execution) for execution in ("written", "compiled") for window in (0, 2)
    ]
    for cost in report.costs[2:]:
        assert cost.transformer is None
        assert cost.warm_up > 0
        assert cost.graph_bytes > 0
        assert list(cost.ran) == ["compiled", "written"]


@pytest.mark.parametrize(("execution", "instead"), [("compiled", "recorded"), ("compiled-captured", "captured")])
def test_a_row_tells_what_ran_where_the_compiler_failed(execution, instead):
    made = Execution(replayed=8, as_recorded=8)
    assert ways_of(execution, 9, made) == {instead: 8, "written": 1}
    assert ways_of(execution, 9, Execution()) == {"written": 9}


def test_a_compiler_that_fails_is_reported(monkeypatch):
    """Through `enable_compile`, which knows no such compiler otherwise."""
    monkeypatch.setattr(compiling, "BACKENDS", (*compiling.BACKENDS, "no such compiler"))
    monkeypatch.setitem(EXECUTIONS, "compiled", ("no such compiler", False))
    report = measure_pass_costs("toy", [2], torch.float32, passes=6, executions=["compiled"])
    assert [(cost.execution, list(cost.ran)) for cost in report.costs] == [("compiled", ["recorded", "written"])] * 2


def test_captured_passes_need_a_gpu(capsys):
    assert main(["pass-cost", "--shape", "toy", "--device", "cpu", "--execution", "captured"]) == 2
    assert "--execution captured needs a CUDA device, not cpu." in capsys.readouterr().err


def test_a_picture_that_ends_too_soon_is_told(capsys):
    assert main(["pass-cost", "--shape", "toy", "--device", "cpu", "--windows", "64", "--execution", "written"]) == 2
    assert "A picture takes no more than 3 passes at window 64." in capsys.readouterr().err


def test_an_interrupted_run_goes_on(tmp_path):
    saved = []
    journal = Journal(save=lambda value: saved.append(json.dumps(value)))
    report = measure_pass_costs("toy", [2], torch.float32, passes=2, journal=journal)
    half = json.loads(saved[1])  # bandwidth and sequential decoding
    again = measure_pass_costs("toy", [2], torch.float32, passes=2, journal=Journal(half))
    assert (again.bandwidth, again.costs[0]) == (report.bandwidth, report.costs[0])
    assert again.costs[1].samples != report.costs[1].samples


def test_operations_are_counted_by_part(tmp_path, capsys, model):
    file = tmp_path / "operations.json"
    names = ["seeded-jacobi", "revised-jacobi", "par"]  # PAR does not decode this model
    assert main(["operations", "--model", model, "--device", "cpu", "--schedulers", *names, "--json", str(file)]) == 0
    plain, revised = json.loads(file.read_text())["operations"]
    assert plain["parts"]["companions"] == 0 < revised["parts"]["companions"]
    assert plain["parts"]["transformer"] == revised["parts"]["transformer"] > plain["parts"]["sampling"] > 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == names[:2]


def test_operations_of_a_model_of_classes(tmp_path, capsys):
    toy_par_pipeline(6).save_pretrained(tmp_path / "par")
    assert main(["operations", "--model", str(tmp_path / "par"), "--device", "cpu"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["par"]


def test_pictures_of_a_batch_share_passes():
    report = measure_pass_costs("toy", [2], torch.bfloat16, batch_size=2, passes=3)
    assert report.dtype == "bfloat16"
    assert report.weight_bytes == 2 * sum(
        parameter.numel() for parameter in weights(shape_pipeline(SHAPES["toy"], torch.float32, torch.device("cpu")))
    )


# Weights of the language model's layers, as published: 24 of 2048 x 5632, 30 of 4096 x 11008.
@pytest.mark.parametrize(("name", "billions"), [("janus-pro-1b", 1.233), ("janus-pro-7b", 6.072)])
def test_published_shapes(name, billions):
    pipe = shape_pipeline(SHAPES[name], torch.bfloat16, torch.device("meta"))
    head = sum(parameter.numel() for parameter in pipe.model.model.generation_head.parameters())
    assert (weight_bytes(pipe) / 2 - head) / 1e9 == pytest.approx(billions, rel=1e-3)
    assert (pipe.image_layout(None, None).num_tokens, pipe.image_layout(None, None).codebook_size) == (576, 16384)


def test_every_shape_is_offered():
    assert tuple(SHAPES) == OFFERED
    assert tuple(EXECUTIONS) == WAYS


def weights(pipe):
    yield from pipe.model.model.language_model.layers.parameters()
    yield from pipe.model.model.generation_head.parameters()
