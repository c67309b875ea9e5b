"""Studies of a config's model beside the walk: what needs no coordinates (`rank`), and what survives a change (`stability`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import store
from ..activations.collecting import collect
from ..basis.ends import fit_bases
from ..basis.linear import Basis
from ..circuits import Circuit, build_circuit
from ..data import Batches
from ..errors import ConfigError
from ..invariants import RankReport, rank_report
from ..invariants.subspaces import check_kept
from ..solvers.size_rule import default_solver
from ..stability import Stability, stability, standard_conditions
from ..views.studies import rank_page, stability_page
from .state import State

#: examples that ranks are measured on, by the model's metric: images, or windows of text
RANK_EXAMPLES = {"accuracy": 4096, "ce": 256}


def rank_study(state: State, ks: Sequence[int] | None = None) -> list[RankReport]:
    """A report for each segment; rank.json and a page, rank.html, in the run folder.

    What wires can carry is asked of the features of the config's own dictionaries, which are fitted where they are not there.
    """
    fit, held_out = state.batches
    few = fit.take(RANK_EXAMPLES[fit.metric])
    for segment in state.segments:
        for k in ks or ():
            check_kept(k, segment.d_in)  # before any dictionary is trained
    found = [
        rank_report(state.model, s, few, held_out, ks, seed=state.seed, basis_in=state.bases[s.hook_in])
        for s in state.segments
    ]
    out = _folder(state)
    store.replace_file(out / "rank.json", store.dump_json([r.to_dict() for r in found]))
    rank_page(found, f"{state.name}: what needs no coordinates").save(out / "rank.html")
    return found


def stability_study(state: State, rises: Sequence[float] = (0.001, 0.01), steps: int = 100) -> Stability:
    """The config's walk found again under changes; stability.json and a page, stability.html, in the run folder.

    A network that the config trains is also trained from another seed, and its features matched through activations.
    """
    fit, held_out = state.batches
    retrained = state.source.retrained(state.out)
    first, conditions = standard_conditions(state.model, fit, state.seed, rises, steps=steps, retrained=retrained)
    found = stability(state.model, _refit(state), first, held_out, conditions, state.seed)
    out = _folder(state)
    store.replace_file(out / "stability.json", store.dump_json(plain(found.to_dict())))
    stability_page(found, f"{state.name}: what survives a change").save(out / "stability.html")
    return found


def _folder(state: State) -> Path:
    if state.out is None:
        raise ConfigError("a study writes into a run folder, and this walk is in memory: give it a folder")
    return state.out


def _refit(state: State) -> Any:
    """The config's own bases, solver and gates, for another model, other data or another seed."""

    def refit(model: Any, fit: Batches, seed: int, bases: Mapping[str, Basis] | None) -> Circuit:
        source = state.source.with_seed(seed)
        segments = source.segments_of(model)
        acts = collect(model, fit, segments)
        chosen = dict(bases) if bases is not None else fit_bases(source.recipes, segments, acts)
        solver = source.solver if source.solver is not None else default_solver(segments, chosen, seed)
        judged = collect(model, state.batches[1], segments)
        options = {**source.gate_options, "seed": seed}
        return build_circuit(model, segments, chosen, acts, solver, held_out=judged, **options)

    return refit


def plain(value: Any) -> Any:
    """NaN as null: a figure that does not exist."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value
