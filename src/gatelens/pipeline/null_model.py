"""The random-weight model of a report: the config's own walk on permuted weights, down to dictionaries and gates of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..activations.collecting import collect
from ..bases.sae.pretrained import PretrainedSAE
from ..bases.sae.trained import TrainedSAE
from ..basis.fitting import fit_bases
from ..circuits import Circuit, build_circuit
from ..evaluation.baselines import random_weights
from .building import find

if TYPE_CHECKING:
    from .walk import Walk

#: rows that a dictionary is trained on where the model's own was published
SAMPLES = 50_000
#: samples times width times features of the largest one that is trained for a report: seconds, not hours
MOST = 2**35


def random_model(walk: Walk) -> tuple[Any, Circuit] | None:
    """The model of permuted weights and what the same walk finds there; None where its dictionaries would take too long.

    Published dictionaries are of another model: ones of the same width, with as many features active, are trained instead.
    """
    recipes = null_recipes(walk)
    if recipes is None:
        return None
    model = random_weights(walk.model, walk.config.seed)
    section = {"use": "mlp_segments"} | walk.config.segments
    segments = list(find(section.pop("use"), "segments")(model, **section))
    fit, held_out = (collect(model, part, segments) for part in walk.batches)
    bases = fit_bases(recipes, segments, fit, progress=walk.progress)
    return model, build_circuit(model, segments, bases, fit, walk.solver, held_out=held_out, **walk.gate_options)


def null_recipes(walk: Walk) -> dict[str, Any] | None:
    """The config's recipes, with trained SAEs in the place of published ones; None where one cannot be had in seconds."""
    widths = {hook: walk.acts[0][hook].shape[1] for hook in walk.bases}
    if not has_null(walk.recipes, widths, {hook: walk.features[hook].shape[1] for hook in walk.bases}):
        return None
    found: dict[str, Any] = {}
    for name, recipe in walk.recipes.items():
        hooks = [name] if name else list(walk.bases)
        found |= {h: _like(walk, h) for h in hooks} if isinstance(recipe, PretrainedSAE) else {name: recipe}
    return found


def has_null(recipes: Mapping[str, Any], widths: Mapping[str, int], features: Mapping[str, int]) -> bool:
    """Whether a report has a random-weight model.

    It has none where a dictionary is read from a folder (it is the other model's), or where a published one is too large to
    train another like it.

    Args:
        recipes: "" or hook name -> recipe. widths, features: hook name -> of the activations, of the dictionary.
    """
    if any(getattr(recipe, "path", None) is not None for recipe in recipes.values()):
        return False
    published = [h for h in widths if isinstance(recipes.get(h, recipes.get("")), PretrainedSAE)]
    return all(SAMPLES * widths[hook] * features[hook] <= MOST for hook in published)


def _like(walk: Walk, hook: str) -> TrainedSAE:
    """A recipe for an SAE as wide as the one at hand, with as many features active."""
    f = walk.features[hook]
    active = _nonzeros(f) / len(f)
    return TrainedSAE(d_sae=f.shape[1], k=max(1, round(active)), samples=SAMPLES, seed=walk.config.seed)


def _nonzeros(f: Tensor) -> int:
    return len(f.values()) if f.is_sparse_csr else int(f.count_nonzero())
