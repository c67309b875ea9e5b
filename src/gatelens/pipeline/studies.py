"""Studies of a config's model beside the walk: what needs no coordinates (`rank`), and what survives a change (`stability`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import store
from ..activations.collecting import collect
from ..basis.linear import Basis
from ..circuits import Circuit, build_circuit
from ..data import Batches
from ..invariants import RankReport, rank_report
from ..stability import Stability, stability, standard_conditions
from ..views.studies import rank_page, stability_page
from .building import find
from .config import Config
from .loading import model_from
from .walk import Walk

#: examples that ranks are measured on, by the model's metric: images, or windows of text
RANK_EXAMPLES = {"accuracy": 4096, "ce": 256}


def rank_study(walk: Walk, ks: Sequence[int] | None = None) -> list[RankReport]:
    """A report for each segment; rank.json and a page, rank.html, in the run folder."""
    fit, held_out = walk.batches
    few = fit.take(RANK_EXAMPLES[fit.metric])
    found = [rank_report(walk.model, s, few, held_out, ks, seed=walk.config.seed) for s in walk.segments]
    store.replace_file(walk.out / "rank.json", store.dump_json([r.to_dict() for r in found]))
    rank_page(found, f"{walk.config.name}: what needs no coordinates").save(walk.out / "rank.html")
    return found


def stability_study(walk: Walk, rises: Sequence[float] = (0.001, 0.01), steps: int = 100) -> Stability:
    """The config's walk found again under changes; stability.json and a page, stability.html, in the run folder.

    A network that the config trains is also trained from another seed, and its features matched through activations.
    """
    fit, held_out = walk.batches
    retrained = _retrained(walk)
    first, conditions = standard_conditions(walk.model, fit, walk.config.seed, rises, steps=steps, retrained=retrained)
    found = stability(walk.model, _refit(walk), first, held_out, conditions, walk.config.seed)
    store.replace_file(walk.out / "stability.json", store.dump_json(plain(found.to_dict())))
    stability_page(found, f"{walk.config.name}: what survives a change").save(walk.out / "stability.html")
    return found


def _refit(walk: Walk) -> Any:
    """The config's own bases, solver and gates, for another model, other data or another seed."""

    def refit(model: Any, fit: Batches, seed: int, bases: Mapping[str, Basis] | None) -> Circuit:
        section = {"use": "mlp_segments"} | walk.config.segments
        segments = list(find(section.pop("use"), "segments")(model, **section))
        acts = collect(model, fit, segments)
        other = Walk(_with_seed(walk, seed), walk.out)
        chosen = dict(bases) if bases is not None else other.fit_bases(acts, segments)
        judged = collect(model, walk.batches[1], segments)
        options = {**walk.gate_options, "seed": seed}
        return build_circuit(model, segments, chosen, acts, other.solver, held_out=judged, **options)

    return refit


def _retrained(walk: Walk) -> Any:
    """The config's network trained from the next seed, kept in the run folder; None for a model that is not trained here."""
    section = walk.config.model
    if section.get("use") != "HookedMLP" or section.get("weights") is not None:
        return None
    return model_from(_with_seed(walk, walk.config.seed + 1), walk.out / "model-retrained", walk.progress)


def _with_seed(walk: Walk, seed: int) -> Config:
    return walk.config.model_copy(update={"seed": seed})


def plain(value: Any) -> Any:
    """NaN as null: a figure that does not exist."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value
