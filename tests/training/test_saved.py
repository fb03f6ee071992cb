"""What is said where a run's files are missing or broken."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sjd_pipelines.distillation import __main__ as distillation
from sjd_pipelines.learning.saved import last_entry, read_state, read_weights
from sjd_pipelines.training import __main__ as training
from sjd_pipelines.training import flow, par

STUDENT = json.dumps({"model": "", "rank": 0, "alpha": 1.0})


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with files that no run has saved, in the current one."""
    monkeypatch.chdir(tmp_path)
    folder = Path("run")
    folder.mkdir()
    (folder / "student.json").write_text(STUDENT)
    save_file({"model.nothing": torch.ones(1)}, folder / "student.safetensors")
    for name in ("00000.safetensors", "flow_state.pt", "transformer.safetensors", "settings.json"):
        (folder / name).write_bytes(b"{\xff")
    Path("prompts.txt").write_text("car\n")
    (Path("other") / "student.json").parent.mkdir()
    Path("other/student.json").write_text('{"width": 3}')
    Path("short").mkdir()
    Path("short/student.json").write_text("{}")
    save_file({"model.nothing": torch.ones(1)}, "short/student.safetensors")
    return folder


@pytest.mark.parametrize(
    ("main", "command", "message"),
    [
        (distillation, "export --folder none --target new", "none/student.json does not exist: no run has saved it."),
        (distillation, "export --folder other --target new", "other/student.json is not as a run saves it (TypeError"),
        (distillation, "export --folder short --target new", "short/student.json is not as a run saves it (Value"),
        (distillation, "train --folder a --trajectories short", "short/student.safetensors is not as a run saves i"),
        (distillation, "export --folder run --target new", "run/student.safetensors is not as a run saves it (Attr"),
        (distillation, "trajectories --folder a --prompts none.txt", "none.txt: No such file or directory."),
        (distillation, "trajectories --folder a --prompts run/settings.json", "run/settings.json is no text in UTF-8"),
        (distillation, "trajectories --folder run --prompts prompts.txt", "run/settings.json is no text in UTF-8"),
        (
            distillation,
            "trajectories --folder prompts.txt --prompts prompts.txt",
            "prompts.txt is not a folder; choose another one.",
        ),
        (distillation, "train --folder a --trajectories run", "run/00000.safetensors is not as a run saves it (Safet"),
        (training, "export --folder none --target new", "none/transformer.safetensors does not exist: no run has s"),
        (training, "evaluate --folder run", "run/transformer.safetensors is not as a run saves it (SafetensorError"),
        (training, "export --folder run --results run/settings.json", "run/settings.json is no text in UTF-8"),
        (training, "restore --folder new --source run", "run has no results.json, so that no run can be made of it."),
        (flow, "evaluate --folder run", "run/flow_state.pt is not as a run saves it (UnpicklingError"),
        (par, "evaluate --folder run", "run/par_state.pt does not exist: no run has saved it."),
    ],
)
def test_files_that_no_run_has_saved(run, capsys, main, command, message):
    assert main.main(command.split()) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith(f"error: {message}")
    assert len(err) < 500


def test_readers_name_the_file_and_the_reason(tmp_path):
    log = tmp_path / "log.jsonl"
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl does not exist: no run has saved it\.$"):
        last_entry(log)
    for text in ("", "[1]", '{"step": 1}\n{"st'):
        log.write_text(text)
        with pytest.raises(OSError, match=r"log\.jsonl is not as a run saves it \("):
            last_entry(log)
    for read in (read_weights, read_state):
        with pytest.raises(OSError, match=r"log\.jsonl is not as a run saves it \(|No such device|Is a directory"):
            read(log)
        with pytest.raises(OSError, match=f"{tmp_path}"):
            read(tmp_path)
