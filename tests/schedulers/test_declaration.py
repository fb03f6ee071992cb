"""What schedulers declare: ranges, words, registration. What is forgotten is named here, with the place to mend."""

import inspect
import math
import re
from importlib import import_module
from pathlib import Path

import pytest

import sjd_pipelines
from sjd_pipelines import (
    SCHEDULERS,
    CoupledSJDScheduler,
    DecodingScheduler,
    RowParallelScheduler,
    SJDScheduler,
    ZipARScheduler,
)
from sjd_pipelines.benchmark.contenders import RELAXED_FAMILIES
from sjd_pipelines.declaration import Card, Setting, check_settings, settings_of
from sjd_pipelines.exports import Registry
from sjd_pipelines.schedulers import registry
from sjd_pipelines.schedulers.declaration import AUTO

ROOM = Path(registry.__file__).parent
SETTINGS = [(name, key) for name, cls in SCHEDULERS.items() for key in settings_of(cls)]
ABSURD = [10**30, -(10**30), 10**5000, math.inf, -math.inf, math.nan, "9" * 1000, [0] * 1000, {}, object()]


def test_every_scheduler_of_the_package_is_registered():
    modules = [import_module(f"sjd_pipelines.schedulers.{file.stem}") for file in sorted(ROOM.glob("*.py"))]
    found = {
        cls: file
        for file, module in ((Path(module.__file__).name, module) for module in modules)
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, DecodingScheduler) and "card" in vars(cls)
    }
    forgotten = {cls.__name__: file for cls, file in found.items() if cls not in SCHEDULERS.values()}
    assert not forgotten, "a line in sjd_pipelines/schedulers/registry.py is missing"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_registered_scheduler_is_exported_and_found_by_saved_folders(name):
    cls = SCHEDULERS[name]
    assert cls.__module__ == "sjd_pipelines"
    assert getattr(sjd_pipelines, cls.__name__) is cls
    assert {cls.__name__} <= set(sjd_pipelines.__all__) & set(sjd_pipelines.schedulers.__all__)
    assert SCHEDULERS.name_of(cls) == name


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_registered_scheduler_says_what_it_is(name):
    cls = SCHEDULERS[name]
    assert isinstance(vars(cls).get("card"), Card), f"{cls.__name__} has no card of its own"
    for text in (cls.card.summary, cls.card.advice):
        assert text.endswith(".")
    titles = [other.card.title for other in SCHEDULERS.values()]
    assert titles.count(cls.card.title) == 1
    undeclared = inspect.signature(cls).parameters.keys() - settings_of(cls).keys()
    assert not undeclared, f"settings of {cls.__name__} without a Setting in their annotation"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_approximate_schedulers_have_a_bound_and_no_others(name):
    cls = SCHEDULERS[name]
    relaxed = cls.label == "approximate" and cls.greedy_label is None  # what has no chance has no bound either
    assert bool(cls.bounds) == relaxed, f"bounds of {cls.__name__}"
    curves = [family for family in RELAXED_FAMILIES if family.name == name]
    assert [curve.title for curve in curves] == [bound.title for bound in cls.bounds]
    for curve in curves:
        assert curve.by_row == issubclass(cls, RowParallelScheduler)
        for value in curve.values:
            assert type(curve.at(value, columns=8).scheduler) is cls


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_the_default_and_the_ends_of_a_range_are_in_it_and_absurd_values_are_not(name, key):
    cls, setting = SCHEDULERS[name], settings_of(SCHEDULERS[name])[key]
    assert setting.words.endswith(".")
    assert setting.takes(setting.default)
    if setting.is_number:
        for value in (setting.least, setting.most):
            check_settings(cls, {key: value})
        for value in (setting.least - 1, setting.most + 1, str(setting.least), setting.least + 1j):
            assert not setting.takes(value)
        assert not setting.takes(True)
        assert setting.takes(1.0) == (float in setting.types)
    for value in ABSURD:
        with pytest.raises(ValueError, match=f"^{key} must be ") as refused:
            cls(**{key: value})
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("sjd", {"window": 0}, "window must be an integer from 1 to 65536 or 'auto', got 0."),
        (
            "sjd",
            {"window": 10**30},
            "window must be an integer from 1 to 65536 or 'auto', got an integer of 31 digits.",
        ),
        ("pjd", {"window": "auto"}, "window must be an integer from 1 to 65536, got 'auto'."),
        ("zipar", {"delay": -3}, "delay must be an integer from 1 to 65536 or None, got -3."),
        ("gsd", {"distance": math.inf}, "distance must be a number from 0 to 100 or None, got inf."),
        ("lantern", {"relaxation": math.nan}, "relaxation must be a number from 0 to 100, got nan."),
        ("sjd++", {"confidence": "entropy"}, "confidence must be one of ratio, probability; got 'entropy'."),
        ("pjd", {"coupled": "perhaps"}, "coupled must be True or False, got 'perhaps'."),
        ("sjd-pac", {"branches": 6, "depth": 5}, "branches ** depth must be at most 1024, got 7776."),
    ],
)
def test_python_and_the_command_line_say_the_same(sjd, name, given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SCHEDULERS[name](**given)
    assignments = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    status, out, err = sjd("generate", "car", "--model", "nowhere", "--scheduler", name, *assignments)
    assert (status, out, err) == (2, "", f"sjd: error: scheduler {name}: {message}\n")


def test_settings_read_from_a_saved_config_are_held_to_their_ranges(tmp_path):
    scheduler = SJDScheduler(window=7)
    with pytest.raises(ValueError, match=r"^window must be .*, got 0\.$"):
        CoupledSJDScheduler.from_config(scheduler.config, window=0)
    scheduler.save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    file.write_text(file.read_text().replace('"window": 7', '"window": 1e30'))
    with pytest.raises(ValueError, match=r"^window must be .*, got 1e\+30\.$"):
        SJDScheduler.from_pretrained(tmp_path)


def test_compatible_schedulers_are_the_registered_ones():
    assert SJDScheduler().compatibles == list(SCHEDULERS.values())


def test_settings_say_what_they_take():
    assert settings_of(ZipARScheduler)["adaptive"].expected == "True or False"
    window = settings_of(SJDScheduler)["window"]
    assert (window.types, window.default, window.choices) == ((int, str), 16, (AUTO,))
    assert (
        Setting("", least=1, most=2, choices=("a", "b"), types=(int, str)).expected
        == "an integer from 1 to 2 or 'a' or 'b'"
    )
    assert Setting("", choices=("a", "b"), types=(str,)).refusal("c") == "must be one of a, b; got 'c'"


def test_names_are_known_before_classes_are_loaded(monkeypatch):
    places = Registry("sjd_pipelines.schedulers", {"somewhere": "nowhere.NoScheduler"})
    assert list(places) == ["somewhere"]
    assert "somewhere" in places
    assert "elsewhere" not in places
    with pytest.raises(ModuleNotFoundError):
        places["somewhere"]
    monkeypatch.setitem(SCHEDULERS, "mine", SJDScheduler)
    assert SCHEDULERS["mine"] is SJDScheduler
    with pytest.raises(AttributeError, match="module 'sjd_pipelines' has no attribute 'SJDSchedular'"):
        _ = sjd_pipelines.SJDSchedular
