"""Draft model and reviser: every family takes them, and its constructor says so."""

import inspect

import pytest

from sjd_pipelines import EagleDrafter
from sjd_pipelines.pipelines.families import FAMILIES
from sjd_pipelines.pipelines.helpers import HELPERS

DRAFTER = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.module)
def test_every_constructor_states_the_helpers(family):
    cls = family.load()
    *own, drafter, reviser = inspect.signature(cls).parameters.values()
    assert [drafter.name, reviser.name] == list(HELPERS)
    assert drafter.default is reviser.default is None
    assert set(HELPERS) <= set(cls._optional_components)
    assert "scheduler" in [parameter.name for parameter in own]


def test_helpers_are_components(toy):
    drafter = EagleDrafter(**DRAFTER)
    cls, own = type(toy), (toy.model, toy.processor, toy.scheduler)
    assert cls(*own).drafter is None
    for pipe in (cls(*own, drafter), cls(*own, drafter=drafter), cls(*own, reviser=None, drafter=drafter)):
        assert pipe.drafter is drafter
        assert pipe.reviser is None
        assert pipe.components["drafter"] is drafter
        assert pipe.config.drafter == ("sjd_pipelines", "EagleDrafter")


def test_what_the_constructor_does_not_take_is_refused(toy):
    with pytest.raises(TypeError, match="unexpected keyword argument 'draftor'"):
        type(toy)(toy.model, toy.processor, toy.scheduler, draftor=None)
    with pytest.raises(TypeError, match="missing a required argument: 'scheduler'"):
        type(toy)(toy.model, toy.processor)
