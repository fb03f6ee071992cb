"""Fixtures: a tiny random Janus shared by the whole run, 4 x 4 tokens, 16 codebook entries; and the command line."""

import pytest
import torch

from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.cli import main


@pytest.fixture(scope="session")
def toy():
    pipe = toy_pipeline(side=4, codebook_size=16)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(toy):
    """The toy with its scheduler restored afterwards."""
    before = toy.scheduler
    yield toy
    toy.scheduler = before


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


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]
