"""known, neighbourhood: what activations say of the features in a drawing, and a gate among those that share its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from ..activations import Activations
from ..basis.output import at_output
from ..circuits import Circuit
from ..data import Batches
from ..data.told import Tokenizer, tokenizer_of
from ..gates import Gate
from ..models import Model
from .cards import FeatureView
from .contexts import FeatureRows
from .document import percent
from .logits import effects_of, readout_of
from .net import NODES, drawing, net_of
from .sketch import Effect, Known, sketch_of
from .svg import Drawing

#: contexts in what shows when a feature is pointed at
HINTS = 3


def rows_of(circuit: Any, acts: Any, segment: Any, gates: Iterable[Gate]) -> tuple[FeatureRows, FeatureRows]:
    """Values of the features that the gates name, at the segment's input and at its output, over the held-out rows."""
    gates = list(gates)
    basis_out = circuit.bases[segment.hook_out]
    made_from = acts[at_output(basis_out).source(segment)]
    return (
        FeatureRows.read(circuit.bases[segment.hook_in], acts[segment.hook_in], {i for g in gates for i in g.inputs}),
        FeatureRows.read(basis_out, made_from, {g.out for g in gates}),
    )


def known_of(
    rows: tuple[FeatureRows, FeatureRows],
    label: Callable[[str, int], Any] | None,
    views: Mapping[tuple[str, int], FeatureView] | None = None,
    effect: Callable[[int], Effect] | None = None,
    output: Callable[[int], str] | None = None,
) -> Known:
    """What values over rows, names and examples say of the features of a drawing.

    Args:
        label: ("in" | "out", feature) -> a name. views: (side, feature) -> its examples, for hovering and for thumbnails.
    """
    views = views if views is not None else {}  # one that is still empty is filled later

    @cache
    def typical(feature: int) -> float:
        _, values = rows[0].on(feature)
        return float(values.mean()) if len(values) else 0.0

    @cache
    def largest(feature: int) -> float:
        _, values = rows[0].on(feature)
        return float(values.max()) if len(values) else 0.0

    hints: dict[tuple[str, int], str] = {}

    def hint(side: str, feature: int) -> str:
        view = views.get((side, feature))
        if view is not None and (side, feature) not in hints:
            hints[side, feature] = hint_of(view)
        return hints.get((side, feature), "")

    def picture(side: str, feature: int) -> str:
        view = views.get((side, feature))
        return "" if view is None else view.field_url or view.mean_url

    return Known(label or _unnamed, hint, picture, typical, largest, effect, output)


def _unnamed(side: str, feature: int) -> str:
    return ""


def hint_of(view: FeatureView) -> str:
    """A feature's name, label and strongest contexts as plain text."""
    lines = [f"{view.name}: {view.label}" if view.label else view.name]
    if view.rows:
        lines.append(f"on in {percent(view.firings / view.rows)} of rows")
    for window in [w for e in view.groups[:1] for w in e.windows[:HINTS]]:
        before = "".join(t.text for t in window.before[-4:])
        middle = "".join(t.text for t in window.after[:1])
        after = "".join(t.text for t in window.after[1:3])
        lines.append(f"…{before}[{middle}]{after}…")
    return "\n".join(lines)


def known(
    circuit: Circuit,
    acts: Activations,
    *,
    segment: str | None = None,
    model: Model | None = None,
    tokenizer: Tokenizer | None = None,
    batches: Batches | None = None,
) -> Known:
    """What a drawing shows beside a gate's own fields: names, typical values, contexts, favoured tokens.

    Args:
        acts: held-out activations at the segments' hook points.
        model: for its tokenizer, and for the tokens or classes that an output favours.
        batches: the held-out data, where the inputs are pictures.
    """
    from .examples import source_of_examples

    part = circuit.segment(segment)
    tokenizer = tokenizer if tokenizer is not None else tokenizer_of(model)
    rows = rows_of(circuit, acts, part, circuit.gates.get(part.name, []))
    labels = source_of_examples(acts, batches, model, tokenizer, circuit).labels
    readout = readout_of(model, part.hook_out, part.d_out, tokenizer)
    sides = dict(zip(("in", "out"), rows, strict=True))
    name = (lambda side, feature: labels.short(sides[side], feature)) if labels else None
    effects = effects_of(readout, circuit.bases[part.hook_out], part.d_out)
    called = readout.name if readout else None
    found = known_of(rows, name, effect=effects.favoured if effects else None, output=called)
    return replace(found, marks=lambda out: labels.marks(rows[1], out)) if labels else found


def neighbourhood(
    circuit: Circuit, out: int, known: Known | None = None, *, segment: str | None = None, nodes: int = NODES
) -> Drawing:
    """A gate and the gates that share inputs with it, the nearest first, as one drawing.

    Args:
        out: the output feature in the middle.
        nodes: inputs and gates together at most.
    """
    part = circuit.segment(segment)
    centre = circuit.gate(out, part.name)
    gates = [centre, *relatives(centre, circuit.gates[part.name])]
    return drawing(net_of([sketch_of(g, known) for g in gates], nodes, first=out))


def relatives(gate: Gate, gates: Sequence[Gate]) -> list[Gate]:
    """Gates with a rule that share inputs with a gate's rule: those that share most first, then those with fewest others."""
    own = {*gate.excite, *gate.inhibit}
    found = []
    for other in gates:
        theirs = {*other.excite, *other.inhibit}
        shared = len(own & theirs)
        if other.out != gate.out and shared and str(other.kind) != "not_read":
            found.append((-shared, len(theirs) - shared, -(other.mcc or 0.0), other.out, other))
    return [other for *_, other in sorted(found, key=lambda f: f[:4])]
