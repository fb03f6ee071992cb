"""Models by name: the table, what a name means, and who loads what."""

import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import sjd_pipelines
from sjd_pipelines import SJDAutoRegressivePipeline, SJDEmu3Pipeline, SJDJanusPipeline, SJDLlamaGenPipeline
from sjd_pipelines.bundled import BUNDLED, DEFAULT, bundled_folder
from sjd_pipelines.emoji.glyphs import OBJECTS
from sjd_pipelines.emoji.judge import read_scene
from sjd_pipelines.pipelines.families import FAMILIES, family_of_pipeline
from sjd_pipelines.pipelines.info import inspect_model
from sjd_pipelines.pipelines.loading import find_family, find_pipeline

LIMIT = 45e6  # bytes


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", BUNDLED)
def test_every_entry_is_true_of_its_folder(name):
    assert "/" not in name
    assert find_family(bundled_folder(name)).__name__ == BUNDLED[name].pipeline
    assert inspect_model(name).pipeline == BUNDLED[name].pipeline


def test_companions_are_counted_and_nothing_is_logged(capfd):
    assert {"model", "drafter", "reviser"} <= inspect_model("emoji-janus").parameters.keys()
    inspect_model("emoji-flow", torch.bfloat16)
    assert capfd.readouterr() == ("", "")


def test_every_folder_has_an_entry():
    folders = {path.name for path in bundled_folder().parent.iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(BUNDLED)


def test_bundled_models_stay_small():
    files = [path for name in BUNDLED for path in bundled_folder(name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT


def test_no_name_is_the_default():
    assert find_pipeline(None, {}) == find_pipeline(DEFAULT, {}) == (bundled_folder(DEFAULT), SJDJanusPipeline)
    assert inspect_model().source == DEFAULT


def test_a_bundled_name_comes_before_a_folder(here, captions):
    captions.save_pretrained(here / DEFAULT)
    assert type(SJDAutoRegressivePipeline.from_pretrained(DEFAULT)) is SJDJanusPipeline
    for folder in (f"./{DEFAULT}", f"{DEFAULT}/", Path(DEFAULT), str(here / DEFAULT)):
        assert type(SJDAutoRegressivePipeline.from_pretrained(folder)) is SJDLlamaGenPipeline


def test_a_folder_comes_before_the_hub(here, captions, monkeypatch):
    for name in ("mine", "owner/name"):
        captions.save_pretrained(here / name)
        assert find_pipeline(name, {}) == (Path(name), SJDLlamaGenPipeline)
    monkeypatch.setenv("HOME", str(here))
    assert find_pipeline("~/mine", {}) == (here / "mine", SJDLlamaGenPipeline)
    shutil.rmtree(here / "owner")
    with pytest.raises(OSError, match=r"^owner/name has not been downloaded before"):
        find_pipeline("owner/name", {"local_files_only": True, "cache_dir": here})


def test_a_name_of_nothing_lists_the_bundled_ones(here):
    message = rf"^mine is neither a bundled model \({', '.join(BUNDLED)}\) nor a folder; .* owner/name\.$"
    with pytest.raises(OSError, match=message):
        SJDAutoRegressivePipeline.from_pretrained("mine")
    with pytest.raises(OSError, match=r"^\./emoji-janus is neither a folder nor a hub id"):
        SJDAutoRegressivePipeline.from_pretrained("./emoji-janus")


@pytest.mark.parametrize("name", [DEFAULT, "owner/name", "mine", "/absent/mine", "../mine"])
def test_a_path_is_a_folder_and_nothing_else(here, name):
    hint = f"; give a bundled model, or what is on the hub, as text: '{name}'" * (name in (DEFAULT, "owner/name"))
    message = f"^{name}: there is no such folder, and a Path always means one on disk{hint}\\.$"
    with pytest.raises(OSError, match=message):
        SJDAutoRegressivePipeline.from_pretrained(Path(name))
    with pytest.raises(OSError, match=rf"^{name}/x\.pt: there is no such file, and a Path always means one on disk"):
        SJDAutoRegressivePipeline.from_single_file(Path(name, "x.pt"))


def test_a_text_that_ends_in_a_slash_is_no_hub_id(here):
    with pytest.raises(OSError, match="the bundled model is called emoji-janus, without a slash"):
        SJDAutoRegressivePipeline.from_pretrained("emoji-janus/")


def test_another_class_says_which_one_to_use():
    message = "^emoji-janus holds a SJDJanusPipeline, not a SJDEmu3Pipeline; load it with SJDJanusPipeline.$"
    for source in ("emoji-janus", None):
        with pytest.raises(ValueError, match=message):
            SJDEmu3Pipeline.from_pretrained(source)


def test_options_of_another_family_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"^recipe is an option of SJDChameleonPipeline; emoji-janus holds a SJDJanus"
    ):
        SJDAutoRegressivePipeline.from_pretrained("emoji-janus", recipe="anole")
    with pytest.raises(ValueError, match=r"^image_area is an option of SJDEmu3Pipeline; .*LlamaGenPipeline\.$"):
        SJDAutoRegressivePipeline.from_single_file(tmp_path / "absent.pt", image_area=36)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.module)
def test_families_keep_what_they_declare(family):
    cls = family.load()
    assert cls is getattr(sjd_pipelines, family.pipeline)
    assert family.pipeline in sjd_pipelines.__all__
    assert family_of_pipeline(cls.__name__) is family
    loaders = [cls.load_transformers_parts] if family.model_type else []
    loaders += [cls.load_published_files] if family.single_files else []
    keywords = {name for loader in loaders for name in inspect.signature(loader).parameters}
    assert {option.name for option in family.options} <= keywords


def test_readme_has_a_row_for_every_family():
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        assert f"| {family.models} | {family.sources} | `{family.pipeline}` |\n" in readme


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.model_type], ids=lambda f: f.module)
def test_a_config_tells_its_family(family, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family.model_type}))
    assert find_family(tmp_path) is family.load()


def test_emoji_par_draws_what_is_named(sjd):
    results = json.loads((bundled_folder("emoji-par") / "results.json").read_text(encoding="utf-8"))
    drawn = results["scores"]["drawn"]
    assert drawn["n"] >= 200
    assert drawn["object"] >= 0.92
    assert sjd("generate", "penguin", "--model", "emoji-par", "--seed", 1, "-o", "penguin.png")[0] == 0
    assert sjd("generate", "--like", "penguin.png", "-o", "again.png")[0] == 0
    assert Path("again.png").read_bytes() == Path("penguin.png").read_bytes()
    with Image.open("penguin.png") as picture:
        assert read_scene(picture).objects == ("penguin",)
    status, _, error = sjd("generate", "unicorn", "--model", "emoji-par")
    assert status == 2
    assert f"by index in [0, 48) or by name ({', '.join(OBJECTS)}); got 'unicorn'." in error
    assert sjd("generate", "penguin", "--model", "emoji-par", "--window", 0, "-o", "zero.png")[0] == 0
    status, _, error = sjd("generate", "dog", "--model", "emoji-par", "--scheduler", "sjd")
    assert status == 2
    assert "makes tokens one after the other, and this model makes" in error
