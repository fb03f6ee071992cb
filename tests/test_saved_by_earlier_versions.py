"""What an earlier version saved still loads and still draws what it drew then.

The folders were written, and their tokens recorded, by that version (`fixtures/make_saved.py`), in float32 on a CPU.
Recordings are compared as fingerprints: a change that redraws a single token of a single picture fails.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import sjd_pipelines
from sjd_pipelines import SCHEDULERS
from sjd_pipelines.decoding.look import looks

from .fixtures.recording import RECORDED, draw, fingerprint_of_weights, load, load_transformers, result

OURS = ("scheduler/scheduler_config", "transformer/config", "drafter/config", "reviser/config", "model_index")
PASSING = ("_diffusers_version", "_name_or_path")  # of the versions and paths of the day


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def entries(file):
    """Every entry of a recording, with the folder of its version."""
    return [
        pytest.param(version, name, entry, id=f"{version.name}-{name}")
        for version in RECORDED
        for name, entry in read(version / file).items()
    ]


def by_scheduler(file):
    """The recorded cases of each model and scheduler, with the model's folder."""
    groups = {}
    for version in RECORDED:
        for name, cases in read(version / file).items():
            for case in cases:
                groups.setdefault((version / name, case["scheduler"]), []).append(case)
    return [
        pytest.param(folder, cases, id=f"{folder.parent.name}-{folder.name}-{scheduler}")
        for (folder, scheduler), cases in groups.items()
    ]


def lasting(config):
    return {key: value for key, value in config.items() if key not in PASSING}


@pytest.fixture(scope="module")
def saved():
    """Recorded folders, each loaded once."""
    loaded = {}

    def pipeline(folder):
        if folder not in loaded:
            loaded[folder] = load(folder)
        return loaded[folder]

    return pipeline


def differing(pipe, cases):
    """The cases that draw other tokens than recorded, or take other passes."""
    return [case | {"now": now} for case in cases if not (now := result(pipe, case)).items() <= case.items()]


def test_there_are_recordings():
    assert "saved_by_0.1.0" in [version.name for version in RECORDED]


@pytest.mark.parametrize(("version", "name", "family"), entries("families.json"))
def test_a_saved_folder_draws_what_it_drew(version, name, family):
    pipe = load(version / name)
    assert type(pipe).__name__ == family["pipeline"]
    index = read(version / name / "model_index.json")
    assert index["scheduler"] == ["sjd_pipelines", type(pipe.scheduler).__name__]
    assert differing(pipe, [family["saved"]]) == []
    picture = draw(pipe, family["saved"] | {"call": {"output_type": "pil"}}).images[0]
    with Image.open(version / f"{name}.png") as expected:
        assert picture.size == expected.size
        # A rounding of the picture decoder may move a colour by one step of 255.
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize(("version", "name", "family"), entries("families.json"))
def test_a_saved_folder_is_saved_as_before(version, name, family, saved, tmp_path):
    """Class names, component names and settings; a later version may add to them."""
    pipe = load(version / name)
    pipe.save_pretrained(tmp_path)
    compared = [part for part in OURS if (version / name / f"{part}.json").is_file()]
    assert compared[-1] == "model_index"
    for part in compared:
        assert lasting(read(version / name / f"{part}.json")).items() <= read(tmp_path / f"{part}.json").items()
    folders = {file.parent.relative_to(version / name) for file in (version / name).rglob("*.safetensors")}
    assert {file.parent.relative_to(tmp_path) for file in tmp_path.rglob("*.safetensors")} == folders


@pytest.mark.parametrize(
    ("version", "name", "family"), [entry for entry in entries("families.json") if "transformers" in entry.values[2]]
)
def test_a_folder_in_transformers_layout_draws_what_it_drew(version, name, family, tmp_path):
    recorded = family["transformers"]
    pipe = load_transformers(version / name, tmp_path / "model", recorded["options"])
    assert type(pipe).__name__ == family["pipeline"]
    assert type(pipe.scheduler).__name__ == recorded["chosen"]
    assert differing(pipe, [recorded]) == []


@pytest.mark.parametrize(("version", "name", "config"), entries("schedulers.json"))
def test_saved_scheduler_settings_load(version, name, config, tmp_path):
    cls = getattr(sjd_pipelines, config["_class_name"])  # as diffusers looks it up
    assert SCHEDULERS[name] is cls
    assert cls.__module__ == "sjd_pipelines"
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config), encoding="utf-8")
    scheduler = cls.from_pretrained(tmp_path)
    scheduler.save_pretrained(tmp_path / "again")
    assert lasting(config).items() <= read(tmp_path / "again" / "scheduler_config.json").items()


@pytest.mark.parametrize("free", [True, False], ids=["free-looks", "costly-looks"])
@pytest.mark.parametrize(("folder", "cases"), by_scheduler("tokens.json"))
def test_every_scheduler_draws_what_it_drew(folder, cases, free, saved):
    with looks(free):  # an accelerator takes the way of the second
        assert differing(saved(folder), cases) == []


@pytest.mark.parametrize("version", RECORDED, ids=lambda version: version.name)
def test_every_scheduler_is_recorded(version):
    known = {config["_class_name"] for config in read(version / "schedulers.json").values()}
    for file in ("tokens.json", "tokens_thorough.json"):
        assert {case["scheduler"] for case in read(version / file)["janus"]} == known
    assert {case["scheduler"] for case in read(version / "tokens_bundled.json")["cases"]} == known


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "cases"), by_scheduler("tokens_thorough.json"))
def test_every_scheduler_draws_what_it_drew_at_every_window(folder, cases, saved):
    """Windows, sampling, batches and settings in more detail than there is time for in every run."""
    assert differing(saved(folder), cases) == []


@pytest.fixture(scope="module")
def bundled():
    pipe = load()
    return pipe, fingerprint_of_weights(pipe)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "name", "config"), entries("schedulers.json"))
def test_the_bundled_model_draws_what_it_drew(version, name, config, bundled):
    """Lists of tokens instead of fingerprints, to tell a near-tie from a change.

    Kernels of another kind of processor may round a logit differently: then a single token flips and what follows it
    changes, in few pictures. A change of a decoder shows in many, and in how many passes they take.
    """
    (pipe, weights), recorded = bundled, read(version / "tokens_bundled.json")
    if weights != recorded["weights"]:
        pytest.skip("the bundled model has other weights than the one that was recorded")
    differing = []
    for case in recorded["cases"]:
        if case["scheduler"] == config["_class_name"]:
            output = draw(pipe, case)
            for number, tokens in zip(case["pictures"], output.tokens):
                changed = (tokens != torch.tensor(recorded["pictures"][number])).nonzero().flatten().tolist()
                if changed:
                    differing.append(f"{case}: {len(changed)} tokens differ, the first at {changed[0]}")
            if output.statistics.forward_passes != case["forward_passes"]:
                differing.append(f"{case}: now {output.statistics.forward_passes} passes")
    assert differing == []
