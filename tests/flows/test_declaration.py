"""What solvers of flows declare, as schedulers do: ranges, words, registration; what is forgotten is named here."""

import inspect
import math
from importlib import import_module
from pathlib import Path

import pytest

import sjd_pipelines
from sjd_pipelines import (
    FLOW_SOLVERS,
    SCHEDULERS,
    FlowSolver,
    FrontierFlowSolver,
    GaussSeidelJacobiFlowSolver,
    JacobiFlowSolver,
    PlannedFlowSolver,
)
from sjd_pipelines.declaration import Card, check_settings, settings_of
from sjd_pipelines.flows import registry

ROOM = Path(registry.__file__).parent
RECORDS = {"measured", "corrections", "guesses"}  # what calibration wrote down, which nobody sets
SETTINGS = [(name, key) for name, cls in FLOW_SOLVERS.items() for key in settings_of(cls)]
ABSURD = [10**30, -(10**30), 10**5000, math.inf, -math.inf, math.nan, "9" * 1000, [0] * 1000, {}, object(), True]


def test_every_solver_of_the_package_is_registered():
    modules = [import_module(f"sjd_pipelines.flows.{file.stem}") for file in sorted(ROOM.glob("*.py"))]
    found = {
        cls
        for module in modules
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, FlowSolver) and cls is not FlowSolver
    }
    assert found == set(FLOW_SOLVERS.values()), "a line in sjd_pipelines/flows/registry.py is missing"
    assert not set(FLOW_SOLVERS) & set(SCHEDULERS), "a name says whether it is a scheduler or a solver"


@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_a_registered_solver_says_what_it_is_and_is_found_by_saved_folders(name):
    cls = FLOW_SOLVERS[name]
    assert cls.__module__ == "sjd_pipelines"
    assert getattr(sjd_pipelines, cls.__name__) is cls
    assert isinstance(vars(cls).get("card"), Card)
    assert cls.paper
    assert cls.claim
    assert all(text.endswith(".") for text in (cls.card.summary, cls.card.advice))
    assert (cls().name, cls().compatibles) == (name, list(FLOW_SOLVERS.values()))
    parameters = inspect.signature(cls).parameters
    assert parameters.keys() - settings_of(cls).keys() <= RECORDS, "a setting without a Setting in its annotation"
    # diffusers takes what was given by position for a default, and drops it where another config is made of it.
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in parameters.values())


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_defaults_and_ends_are_in_the_range_and_absurd_values_are_not(name, key):
    cls, setting = FLOW_SOLVERS[name], settings_of(FLOW_SOLVERS[name])[key]
    assert setting.words.endswith(".")
    assert setting.takes(setting.default)
    for value in (setting.least, setting.most) if setting.is_number else setting.choices:
        check_settings(cls, {key: value})
    for value in ABSURD:
        with pytest.raises(ValueError, match=f"^{key} must be ") as refused:
            cls(**{key: value})
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrontierFlowSolver(tolerance=-1), "tolerance must be a number from 0 to 1, got -1."),
        (lambda: FrontierFlowSolver(window=0), "window must be an integer from 1 to 65536 or None, got 0."),
        (lambda: JacobiFlowSolver(max_iterations=2.5), "max_iterations must be an integer from 1 to 65536 or None,"),
        (lambda: FrontierFlowSolver(start="ones"), "start must be one of latents, zeros; got 'ones'."),
        (lambda: GaussSeidelJacobiFlowSolver(strategy="6-8-32"), "strategy must be a text such as 6-8-32-10 or 0/7"),
        (lambda: GaussSeidelJacobiFlowSolver(strategy="0/1-8/8/8-2-3"), "strategy must read stack-segments-passes-el"),
        (lambda: GaussSeidelJacobiFlowSolver(strategy="0-0-2-3"), "strategy must read stack-segments-passes-else"),
        (lambda: GaussSeidelJacobiFlowSolver(starts="2"), "starts must be a text such as 0/1/0/0 or None; got '2'."),
        (lambda: PlannedFlowSolver(plan="newton"), "plan: a solver must be one of sequential, flow-jacobi, gauss-sei"),
        (lambda: PlannedFlowSolver(plan="frontier; planned"), "plan: a solver must be one of .*; got 'planned'."),
        (lambda: PlannedFlowSolver(plan="flow-jacobi window=3"), "plan: flow-jacobi has no setting 'window'; it has"),
        (
            lambda: PlannedFlowSolver(plan="sequential speed=3"),
            "plan: sequential has no setting 'speed'; it has none.",
        ),
        (lambda: PlannedFlowSolver(plan="frontier tolerance=x"), "plan: frontier: tolerance must be a number from 0"),
        (lambda: PlannedFlowSolver(plan="frontier;"), "plan must be a text such as frontier tolerance=0.003 start=ze"),
        (lambda: PlannedFlowSolver(plan="frontier 3"), "plan must be a text such as"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        make()


def test_settings_survive_another_config():
    loose = FrontierFlowSolver(tolerance=1e-3, window=7)
    assert FrontierFlowSolver.from_config(loose.config, start="zeros").config.window == 7
    assert JacobiFlowSolver.from_config(loose.config).config.tolerance == 1e-3
    with pytest.raises(ValueError, match=r"^window must be"):
        FrontierFlowSolver.from_config(loose.config, window=-1)
