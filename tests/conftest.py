"""Fixtures: tiny random models shared by the whole run, 4 x 4 tokens, 16 codebook entries; and the command line."""

import os
import signal
import warnings

import pytest
import torch

from sjd_pipelines.benchmark.toy import toy_par_pipeline, toy_pipeline
from sjd_pipelines.benchmark.toy_flow import toy_flow_pipeline
from sjd_pipelines.cli import main
from sjd_pipelines.decoding import DecodingState, ImageTokenLayout, Memory, Sampling, TargetPass
from sjd_pipelines.schedulers import SCHEDULERS, DecodingScheduler

# What the Janus is asked to draw are the names of the classes of the other one.
CLASSES = (
    "a red dog", "two blue cat on a green house", "car", "three dog left of a house", "two blue cat on a red house",
)  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where schedulers, families and flows are tested (default: cpu)")


def pytest_configure(config):
    # A shell's background job ignores it, and so would the commands that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # they share the cores, with what they start
        threads = max(1, (os.cpu_count() or 1) // int(workers))
        torch.set_num_threads(threads)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if config.getoption("--device") == "cpu":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is a newer way to say it, which not every torch has whole
        torch.backends.cudnn.allow_tf32 = False  # convolutions in float32, as elsewhere
    config.addinivalue_line("filterwarnings", "ignore:TensorFloat32 tensor cores:UserWarning")
    config.addinivalue_line("filterwarnings", "ignore:Please use the new API settings to control TF32:UserWarning")


@pytest.fixture(scope="session")
def device(pytestconfig):
    """Where models are tested, `--device`."""
    return torch.device(pytestconfig.getoption("--device"))


@pytest.fixture(scope="session")
def toy(device):
    pipe = toy_pipeline(side=4, codebook_size=16).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(toy):
    """The toy with its scheduler restored afterwards."""
    before = toy.scheduler
    yield toy
    toy.scheduler = before


@pytest.fixture(scope="session")
def toy_flow(device):
    pipe = toy_flow_pipeline().to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def par_toy(device):
    """A model that makes four tokens at once, of classes."""
    pipe = toy_par_pipeline(4, codebook_size=16, names=CLASSES).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def flow_pipe(toy_flow):
    """The toy flow with its solver restored afterwards."""
    before = toy_flow.scheduler
    yield toy_flow
    toy_flow.scheduler = before


@pytest.fixture(scope="session")
def flow_model(tmp_path_factory):
    """A folder with a toy flow, for `--model`."""
    folder = tmp_path_factory.mktemp("models") / "toy-flow"
    toy_flow_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def pipe_of(pipe, par_toy):
    """The toy that a scheduler decodes, by its name."""
    before = par_toy.scheduler
    yield lambda name: par_toy if SCHEDULERS[name].parallel else pipe
    par_toy.scheduler = before


@pytest.fixture
def one_extent(monkeypatch):
    """Every pass reads the whole canvas, so that a picture has one shape."""
    monkeypatch.setattr(DecodingState, "extents", 1)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A folder with a toy, for `--model`."""
    folder = tmp_path_factory.mktemp("models") / "toy"
    toy_pipeline(4, 64).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def sjd(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        capsys.readouterr()
        status = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def small(name: str) -> DecodingScheduler:
    """A scheduler whose passes have few slots."""
    few, kind = {"window": 5, "depth": 2, "branches": 2, "reach": 3}, SCHEDULERS[name]
    return kind(**{key: value for key, value in few.items() if key in dict(kind().settings)})


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class TableTarget:
    """A target whose law of a token depends on the one before it alone, and that keeps what it was asked."""

    def __init__(self, table: torch.Tensor, layout: ImageTokenLayout, batch_size: int):
        self.table, self.layout, self.batch_size, self.device = table, layout, batch_size, table.device
        self.length, self.sampling, self.memory, self.runner = 10**9, Sampling(), Memory(), None  # it keeps no tokens
        self.queries = []

    def run(self, query):
        self.queries.append(query)
        laws = self.table[query.token_ids]
        return TargetPass(query, laws[..., :0], laws)

    def law(self, logits, predicts):
        return logits

    def codebook(self):
        """`[V, 4]`: random, the same for every target."""
        return torch.randn(self.layout.codebook_size, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def table_target():
    """The class `TableTarget`."""
    return TableTarget
