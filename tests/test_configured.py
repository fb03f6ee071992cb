"""Schedulers and solvers as scripts make, swap and name them."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from sjd_pipelines import (
    FLOW_SOLVERS,
    SCHEDULERS,
    DecodingScheduler,
    EagleScheduler,
    GroupedSJDScheduler,
    JacobiFlowSolver,
    LanternScheduler,
    RasterWindowScheduler,
    RowParallelScheduler,
    SJDEmu3Pipeline,
    SJDJanusPipeline,
    SJDPACScheduler,
    SJDScheduler,
)
from sjd_pipelines import SJDAutoRegressivePipeline as Pipeline
from sjd_pipelines.flows import FlowSolver


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SJDScheduler.from_config({"windwo": 3}),
            "SJDScheduler has no setting 'windwo'; did you mean window.",
        ),
        (lambda: SJDScheduler.from_config({}, windwo=3), "SJDScheduler has no setting 'windwo'; did you mean window."),
        (
            lambda: SJDScheduler.from_config({}, depth=3),  # another one has it
            "SJDScheduler has no setting 'depth'; known are initialise, window.",
        ),
        (
            lambda: SJDScheduler.from_config(DDPMScheduler().config),
            "SJDScheduler has no setting 'num_train_timesteps'; known are initialise, window.",
        ),
        (lambda: SJDScheduler.from_config({1: 2}), "SJDScheduler has no setting 1; known are initialise, window."),
        (
            lambda: JacobiFlowSolver.from_config({"tolerence": 3}),
            "JacobiFlowSolver has no setting 'tolerence'; did you mean tolerance.",
        ),
        (
            lambda: SJDScheduler.from_config("sjd"),
            "config must be the config of a scheduler or a dict of settings, got 'sjd'; a folder is loaded by "
            "from_pretrained.",
        ),
        (lambda: SJDPACScheduler(branches=np.int64(16), depth=np.int64(16)), "branches ** depth must be at most"),
    ],
)
def test_what_is_no_setting_is_refused(make, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is compared below
        make()
    assert str(refused.value).startswith(message)


def test_a_swap_keeps_what_only_the_other_one_has():
    config = EagleScheduler(window=5, depth=2).config
    swapped = SJDScheduler.from_config(config)
    assert swapped.window == 5
    assert EagleScheduler.from_config(swapped.config).config.depth == 2
    made, unused = SJDScheduler.from_config({"window": 3}, return_unused_kwargs=True, wnidow=4)
    assert (made.window, unused) == (3, {"wnidow": 4})


def test_a_file_with_a_strange_setting_is_refused(tmp_path):
    SJDScheduler().save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"windows": 3}))
    with pytest.raises(ValueError, match="SJDScheduler has no setting 'windows'; did you mean window"):
        SJDScheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", [DecodingScheduler, RasterWindowScheduler, RowParallelScheduler, FlowSolver])
def test_a_base_is_no_scheduler(cls):
    with pytest.raises(TypeError, match="abstract"):
        cls()
    assert cls not in (*SCHEDULERS.values(), *FLOW_SOLVERS.values())


def test_numbers_of_any_library_are_settings(tmp_path):
    made = LanternScheduler(window=np.int64(8), relaxation=torch.tensor(1.5), spread=np.uint8(3))
    plain = LanternScheduler(window=8, relaxation=1.5, spread=3)
    assert made.config == plain.config
    assert made.acceptance == plain.acceptance
    made.save_pretrained(tmp_path)
    assert LanternScheduler.from_pretrained(tmp_path).config.relaxation == 1.5
    grouped = GroupedSJDScheduler(gap=np.float32(0.5), keep_truncation=np.True_)
    assert grouped.acceptance == GroupedSJDScheduler(gap=0.5).acceptance


@pytest.mark.parametrize("window", [10**400, -(10**400), 3.0, np.float64(3), True, torch.tensor([3]), "9" * 999])
def test_what_is_no_window_is_quoted_shortly(window):
    with pytest.raises(
        ValueError, match=r"^window must be an integer from 1 to 65536 or 'auto', got .*\.$"
    ) as refused:
        SJDScheduler(window=window)
    assert len(str(refused.value)) < 130


def test_a_name_is_a_scheduler(pipe, flow_pipe):
    pipe.scheduler = "sjd"
    assert isinstance(pipe.scheduler, SJDScheduler)
    assert pipe.config["scheduler"] == ("sjd_pipelines", "SJDScheduler")
    drawn = pipe("car", seeds=1, output_type="latent", scheduler="seeded-jacobi")
    assert drawn.statistics.scheduler == "SeededJacobiScheduler"
    flow_pipe.scheduler = next(iter(FLOW_SOLVERS))
    assert isinstance(flow_pipe.scheduler, FlowSolver)


def test_a_pipeline_without_a_scheduler_says_so_when_it_is_called(pipe):
    bare = Pipeline.from_pipe(pipe, scheduler=None)
    with pytest.raises(ValueError, match=r"^pipe.scheduler is None, so that nothing can be drawn: set it to one of "):
        bare("car", seeds=1)
    bare.scheduler = "sjd"
    assert bare.config["scheduler"] == ("sjd_pipelines", "SJDScheduler")  # what save_pretrained goes by


def test_adapters_are_not_loaded_the_diffusers_way(pipe):
    with pytest.raises(NotImplementedError, match=r"^LoRA adapters load like models: .*from_pretrained\(FOLDER\)"):
        pipe.load_lora_weights("folder")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sdj", "there is no scheduler 'sdj'; did you mean sjd."),
        ("SJDScheduler", "there is no scheduler 'SJDScheduler'; did you mean sjd."),
        ("dpm++", "there is no scheduler 'dpm++'; "),
        (SJDScheduler, "scheduler must be an object, got a class; pass SJDScheduler()."),
        (
            DDPMScheduler(),
            "An autoregressive model decodes tokens: scheduler must be one of this package's decoding schedulers, got "
            "DDPMScheduler.",
        ),
        (
            "frontier",
            "An autoregressive model decodes tokens: scheduler must be one of this package's decoding schedulers, got "
            "FrontierFlowSolver.",
        ),
        (
            3,
            "An autoregressive model decodes tokens: scheduler must be one of this package's decoding schedulers, got",
        ),
    ],
)
def test_what_is_no_scheduler_is_refused_wherever_it_is_given(pipe, value, message):
    own = pipe.scheduler
    for give in (
        lambda: setattr(pipe, "scheduler", value),
        lambda: pipe("car", seeds=1, scheduler=value),
        lambda: Pipeline.from_pretrained(scheduler=value),
        lambda: Pipeline.from_pipe(pipe, scheduler=value),
    ):
        with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is compared below
            give()
        assert str(refused.value).startswith(message)
    assert pipe.scheduler is own


def test_another_pipeline_on_the_same_parts(pipe):
    pipe.model.to(torch.bfloat16)
    try:
        other = Pipeline.from_pipe(pipe, scheduler="sjd")
        assert type(other) is SJDJanusPipeline
        assert other.model is pipe.model
        assert other.model.dtype == torch.bfloat16
        assert isinstance(other.scheduler, SJDScheduler)
        assert type(SJDJanusPipeline.from_pipe(pipe)) is SJDJanusPipeline
    finally:
        pipe.model.to(torch.float32)
    with pytest.raises(
        ValueError, match=r"SJDEmu3Pipeline\.from_pipe takes a SJDEmu3Pipeline, got a SJDJanusPipeline"
    ):
        SJDEmu3Pipeline.from_pipe(pipe)
    with pytest.raises(ValueError, match="SJDJanusPipeline has no component or setting 'shceduler'; did you mean sch"):
        Pipeline.from_pipe(pipe, shceduler=SJDScheduler())
