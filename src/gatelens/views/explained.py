"""How much is explained: coverage of the verified gates beside its nulls, and the curves against the wires kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ..evaluation.wire_curves import WireCurve
from .curves import wire_figure
from .document import fragment
from .figures import table

#: what a wire that is taken away carries instead, by the name of the ablation recipe
RECIPES = {"mean": "its input's mean", "zero": "nothing", "resample": "its input's value on another row"}


def explained(report: Mapping[str, Any]) -> Markup:
    """The section of a report's coverage and curves; empty where neither was measured."""
    coverage, curves = report.get("coverage") or {}, report.get("curves") or {}
    if not coverage and not curves:
        return Markup("")
    metric = (report.get("model") or {}).get("metric") or "metric"
    return fragment(
        "explained.html.j2",
        tables=[_coverage_table(coverage, name, metric) for name in coverage.get("segments", {})],
        curves=[
            (name, [(recipe, RECIPES.get(recipe, ""), _drawn(curve)) for recipe, curve in by.items()])
            for name, by in curves.items()
        ],
        metric=metric,
    )


def sentence_of(report: Mapping[str, Any]) -> str:
    """What the verified gates explain, beside neurons, the shuffled null and a random model; "" where not measured."""
    return (report.get("coverage") or {}).get("sentence", "")


def _coverage_table(coverage: Mapping[str, Any], segment: str, metric: str) -> dict[str, Any]:
    found = {"this circuit": coverage["segments"][segment]}
    for name, by in (coverage.get("baselines") or {}).items():
        if segment in by:
            found[name.replace("_", " ")] = by[segment]
    return table(
        segment,
        "",
        [
            ("circuit", None),
            ("verified", "verified"),
            ("of outputs", "outputs"),
            ("their wires", "wires"),
            ("variance", "variance"),
            ("firings", "firings"),
            (metric, "gap"),
            ("variance, all read", "read_variance"),
            ("all wires", "all_variance"),
        ],
        found,
    )


def _drawn(curve: Mapping[str, Any]) -> Markup:
    return Markup(wire_figure(WireCurve.from_dict(curve)))
