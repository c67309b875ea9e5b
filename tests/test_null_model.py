"""The random-weight model of a report has dictionaries of its own, also where the model's were published."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from gatelens import PretrainedSAE, TrainedSAE, Transcoder
from gatelens.pipeline.null_model import has_null, null_recipes


def walk(recipes: dict, features: int = 12, rows: int = 40):
    """What `null_recipes` looks at: activations of width 8, features of which every third is on."""
    f = torch.zeros(rows, features)
    f[:, ::3] = 1.0
    hooks = ("in", "out")
    acts = {hook: torch.zeros(rows, 8) for hook in hooks}
    bases = dict.fromkeys(hooks)
    return SimpleNamespace(
        recipes=recipes,
        bases=bases,
        features=dict.fromkeys(hooks, f),
        acts=(acts, acts),
        config=SimpleNamespace(seed=3),
    )


def test_a_published_dictionary_is_stood_in_for_by_a_trained_one_of_its_width_and_sparsity():
    found = null_recipes(walk({"": PretrainedSAE("gpt2-mini")}))
    assert found is not None
    assert list(found) == ["in", "out"]
    for recipe in found.values():
        assert (recipe.d_sae, recipe.k, recipe.seed) == (12, 4, 3)


def test_other_recipes_are_fitted_again_as_they_are():
    trained = TrainedSAE(d_sae=9, k=2)
    found = null_recipes(walk({"in": PretrainedSAE("gpt2-mini"), "out": trained}))
    assert found is not None
    assert found["out"] is trained
    assert found["in"].d_sae == 12


def test_what_would_take_hours_or_is_read_from_a_folder_has_no_null():
    assert null_recipes(walk({"": Transcoder(path="somewhere")})) is None
    assert null_recipes(walk({"": PretrainedSAE("gpt2-mini")}, features=100_000)) is None
    published = {"": PretrainedSAE("gpt2-mini")}
    assert not has_null(published, {"in": 768}, {"in": 32_768})
    assert has_null(published, {"in": 256}, {"in": 1024})
    assert has_null({"": TrainedSAE()}, {"in": 768}, {"in": 32_768})  # the run itself trains one as large
