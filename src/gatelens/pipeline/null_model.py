"""The random-weight model of a report: the same walk on permuted weights, down to dictionaries and gates of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..activations.collecting import collect
from ..basis.ends import fit_bases
from ..circuits import Circuit, build_circuit
from ..errors import SegmentError
from ..evaluation.baselines import random_weights, sampled
from .state import State


def random_model(state: State) -> tuple[Any, Circuit] | None:
    """The model of permuted weights and what the same walk finds there; None where its dictionaries would take too long.

    Published dictionaries are of another model: ones of the same width, with as many features active, are trained instead.
    """
    widths = {hook: state.acts[0][hook].shape[1] for hook in state.bases}
    active = {hook: (f.shape[1], nonzeros(f) / len(f)) for hook, f in state.features.items()}
    recipes = null_recipes(state.recipes, widths, active, state.seed)
    if recipes is None:
        return None
    model = random_weights(state.model, state.seed)
    try:
        segments = state.source.segments_of(model)
    except SegmentError:  # a stretch of one's own: how another model computes it is not known
        return None
    fit, held_out = (collect(model, part, segments) for part in state.batches)
    bases = fit_bases(recipes, segments, fit, progress=state.progress)
    options = null_gates(state)
    return model, build_circuit(model, segments, bases, fit, state.solver, held_out=held_out, **options)


def null_gates(state: State) -> dict[str, Any]:
    """How gates of baselines are read: a sample, but all as the circuit's own where coverage adds up over them."""
    given = dict(state.source.gate_options)
    return given if state.source.evaluation.coverage else sampled(given)


def null_recipes(
    recipes: Mapping[str, Any], widths: Mapping[str, int], active: Mapping[str, tuple[int, float]], seed: int
) -> dict[str, Any] | None:
    """The recipes for a model of random weights; None where one cannot be had in seconds.

    Args:
        recipes: with the whole protocol, "" or hook name -> recipe. widths, active: hook name -> width of the activations,
            (features, how many are active in a row).
    """
    found: dict[str, Any] = {}
    for name, recipe in recipes.items():
        for hook in [name] if name else list(widths):
            other = recipe.for_null(hook, widths[hook], *active[hook], seed)
            if other is None:
                return None
            if name == "" and other is recipe:  # one recipe for all stays one: neighbours may be coupled
                found[""] = recipe
                break
            found[hook] = other
    return found


def nonzeros(f: Tensor) -> int:
    """How many features are on, over all rows."""
    return len(f.values()) if f.is_sparse_csr else int(f.count_nonzero())
