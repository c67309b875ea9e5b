"""The random-weight model of a report has dictionaries of its own, also where the model's were published."""

from __future__ import annotations

from gatelens import PretrainedSAE, TrainedSAE, Transcoder
from gatelens.basis.recipe import as_recipe
from gatelens.pipeline.null_model import null_recipes


def null_of(recipes: dict, features: int = 12, active: float = 4.0, width: int = 8):
    """What stands in for the recipes on a model of random weights: two hook points, of which every third feature is on."""
    hooks = ("in", "out")
    complete = {name: as_recipe(recipe) for name, recipe in recipes.items()}
    return null_recipes(complete, dict.fromkeys(hooks, width), dict.fromkeys(hooks, (features, active)), seed=3)


def test_a_published_dictionary_is_stood_in_for_by_a_trained_one_of_its_width_and_sparsity():
    found = null_of({"": PretrainedSAE("gpt2-mini")})
    assert found is not None
    assert list(found) == ["in", "out"]
    for recipe in found.values():
        assert (recipe.d_sae, recipe.k, recipe.seed) == (12, 4, 3)


def test_other_recipes_are_fitted_again_as_they_are():
    trained = TrainedSAE(d_sae=9, k=2)
    found = null_of({"in": PretrainedSAE("gpt2-mini"), "out": trained})
    assert found is not None
    assert found["out"] is trained
    assert found["in"].d_sae == 12


def test_what_would_take_hours_or_is_read_from_a_folder_has_no_null():
    assert null_of({"": Transcoder(path="somewhere")}) is None
    assert null_of({"": PretrainedSAE("gpt2-mini")}, features=100_000) is None
    published = {"": PretrainedSAE("gpt2-mini")}
    assert null_of(published, features=32_768, width=768) is None
    assert null_of(published, features=1024, width=256) is not None
    assert null_of({"": TrainedSAE()}, features=32_768, width=768) is not None  # the run itself trains one as large
