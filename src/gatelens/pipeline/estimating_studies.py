"""What the studies of a config's model will take in memory: `rotate`, `rank` and `stability`; no forward pass is made."""

from __future__ import annotations

from dataclasses import replace

from ..bases.rotation import JacobianRotation
from ..invariants.rank import MAX_ENTRIES
from ..invariants.report import COMPARED, INPUTS
from ..store.estimate import Estimate, collecting, features, in_all, only_the_largest
from .shapes import Shapes
from .state import State
from .studies import RANK_EXAMPLES


def rotation_estimate(state: State, recipe: JacobianRotation) -> Estimate:
    """`gatelens rotate`, once the activations are collected.

    The columns of one hook point are held as drawn, scaled and in blocks, with as many held out and as many of noise, or with
    those at points nearby, which are drawn, scaled, joined to the others and in blocks; whole Jacobians are held for the
    picture, of fitted and held-out inputs, before and after.
    """
    shapes = Shapes.of(state)
    inputs = min(recipe.inputs, shapes.fit)
    columns, whole = [], []
    for segment in shapes.segments:
        for side, d in (("out", segment.d_out), ("in", segment.d_in)):
            each = min(recipe.per_input(segment, side, inputs), segment.d_in + segment.d_out - d)
            copies = max(8, 5 + 4 * recipe.points_each(d))
            columns.append(copies * 4 * d * each * inputs)
        whole.append(4 * inputs * segment.d_in * segment.d_out)
    work = {
        "the columns, as drawn, scaled and in blocks": max(columns),
        "Jacobians for the picture": 5 * max(whole),
    }
    read = {"activations at one end of a segment": max(shapes.reading(rows) for rows in (shapes.fit, shapes.held_out))}
    return in_all("rotate", read | only_the_largest(work))


def rank_estimate(state: State) -> Estimate:
    """`gatelens rank`: one segment after the other."""
    shapes = Shapes.of(state)
    fit, _ = state.batches
    few = fit.take(RANK_EXAMPLES[fit.metric]).rows
    widest = max(shapes.segments, key=lambda s: s.d_in * s.d_out)
    numbers = widest.d_in * widest.d_out
    whole = min(INPUTS, few) * numbers
    # too large for whole Jacobians, only products with a few vectors are held
    sketched = 4 * 3 * min(INPUTS, few) * 64 * (widest.d_in + widest.d_out)
    jacobians = (
        sketched if whole > MAX_ENTRIES else max(3 * 4 * whole, 4 * 8 * min(COMPARED, few) * numbers + 4 * whole)
    )
    trained = [e.parts for e in shapes.fitting()]
    work = {
        "training a dictionary": max(sum(p.values()) - p.get("the activations", 0) for p in trained),
        "Jacobians and their decompositions": jacobians,
        "the witness": 3 * 8 * few * (widest.d_in + widest.d_out),
        "passes through the model": shapes.residual_streams() + 3 * shapes.a_pass(),
    }
    kept = collecting(few, [widest.d_in, widest.d_out], pass_bytes=shapes.a_pass()).parts["the activations"]
    return in_all("rank", {"the activations": kept} | only_the_largest(work))


def stability_estimate(state: State) -> Estimate:
    """`gatelens stability`: the first circuit is kept while another is found from activations in memory, and compared."""
    shapes = Shapes.of(state)
    fit, held_out = shapes.fit // 2, shapes.held_out  # each reading is found on one half
    trained = [e.parts for e in replace(shapes, fit=fit).fitting()]
    refit = {
        "training a dictionary": max(sum(p.values()) - p.get("the activations", 0) for p in trained),
        "the fit of the wires": shapes.features(fit) + shapes.solving(shapes.solver(state)),
        "reading the gates": shapes.features(fit) + shapes.features(held_out) + shapes.by_column(fit + held_out),
        "matching the features": _matching(shapes),
    }
    widths = shapes.widths.values()
    kept = sum(collecting(rows, widths).parts["the activations"] for rows in (fit, held_out, held_out))
    return in_all("stability", {"the activations": kept} | only_the_largest(refit))


def _matching(shapes: Shapes) -> int:
    """Both circuits' held-out features, dense, in float64 while they are correlated."""
    most = max(f for f, _ in shapes.wide.values())
    return 2 * sum(features(shapes.held_out, f) for f, _ in shapes.wide.values()) + 4 * 8 * shapes.held_out * most
