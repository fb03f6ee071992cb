"""Recipes: numbers that no run could work with are refused before anything is written, and every field has words."""

from dataclasses import fields

import pytest

from sjd_pipelines.distillation.student import Form
from sjd_pipelines.distillation.train import StudentRecipe
from sjd_pipelines.distillation.trajectories import Settings
from sjd_pipelines.training.drafter import DrafterRecipe
from sjd_pipelines.training.flow_train import FlowRecipe
from sjd_pipelines.training.par_train import ParRecipe
from sjd_pipelines.training.pixels import PixelRecipe
from sjd_pipelines.training.reviser import ReviserRecipe
from sjd_pipelines.training.transformer import TransformerRecipe

RECIPES = [StudentRecipe, DrafterRecipe, ReviserRecipe, PixelRecipe, TransformerRecipe, FlowRecipe, ParRecipe]
NAN = float("nan")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_number_of_a_recipe_is_held_to_a_range(recipe, tmp_path):
    recipe(tmp_path)
    for field in fields(recipe):
        if type(field.default) in (int, float):
            with pytest.raises(ValueError, match=f"^{field.name} must be an? .*, got -1"):
                recipe(tmp_path, **{field.name: -1})
            with pytest.raises(ValueError, match=f"^{field.name} must be an? .*, got nan"):
                recipe(tmp_path, **{field.name: NAN})


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (StudentRecipe, {"windows": 0}, "windows must be an integer of at least 1, got 0"),
        (StudentRecipe, {"minutes": 0.0}, "minutes must be a number above 0, got 0.0"),
        (StudentRecipe, {"log_every": 0}, "log_every must be an integer of at least 1, got 0"),
        (StudentRecipe, {"threads": 10**6}, "threads must be an integer from 1 to "),
        (StudentRecipe, {"target": "pictures"}, "target must be one of law, tokens, got 'pictures'"),
        (ReviserRecipe, {"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        (Form, {"alpha": 0}, "alpha must be a number above 0, got 0"),
        (Form, {"rank": "16"}, "rank must be an integer of at least 0, got '16'"),
        (Settings, {"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        (Settings, {"window": -3}, "window must be an integer from 1 to "),
    ],
)
def test_numbers_are_refused_in_words(recipe, options, message, tmp_path):
    folder = {"folder": tmp_path} if recipe not in (Form, Settings) else {}
    with pytest.raises(ValueError, match=f"^{message}"):
        recipe(**folder, **options)


@pytest.mark.parametrize("recipe", [StudentRecipe, DrafterRecipe, ReviserRecipe])
def test_every_field_has_words(recipe):
    words = recipe.words()
    assert {field.name for field in fields(recipe)} <= words.keys()
    assert words["minutes"] == "of this sitting; a run that goes on has as many again"
