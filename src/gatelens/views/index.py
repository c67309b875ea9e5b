"""The index of a page: one line for every gate there is, to be searched, filtered and sorted however many are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ..gates import Gate
from .contexts import FeatureRows
from .drawing import KIND_NAMES, glyph
from .sketch import Sketch, Stage
from .truth import rule_of

#: words for how a shape joins its inputs
_JOINTS = {"or": "or", "and": "and"}


@dataclass(frozen=True)
class Row:
    """One gate in the index.

    Attributes:
        anchor: element id of its card. summary: what is seen of it while it is closed.
        text: what a search by words looks through. inputs: features of its wires, for exact ids.
        apart: how different its inputs are: 1 less the largest overlap of the rows on which two of its exciters are on.
        body: place of its body among the packed ones; -1 where there is none.
    """

    anchor: str
    out: int
    kind: str
    grade: str
    mcc: float
    firings: int
    r2: float
    apart: float
    inputs: tuple[int, ...]
    text: str
    summary: Markup
    body: int = -1

    def packed(self) -> list[Any]:
        """For the page's script, in the order in which it reads it."""
        figures = [round(self.mcc, 3), self.firings, round(self.r2, 3), round(self.apart, 2)]
        shown = [self.text, str(self.summary), self.body]
        return [self.anchor, self.out, self.kind, self.grade, *figures, list(self.inputs), *shown]


def row_of(gate: Gate, sketch: Sketch, anchor: str, words: Sequence[str], apart: float = 0.0, body: int = -1) -> Row:
    """A gate's line.

    Args:
        words: further texts by which it is found, such as the tokens on which it is strongest.
    """
    labels = [str(sketch.label), *(str(arm.label) for arm in sketch.arms)]
    return Row(
        anchor,
        gate.out,
        sketch.kind,
        sketch.grade,
        gate.mcc if gate.mcc is not None else -1.0,
        gate.firings,
        gate.r2 if gate.r2 is not None else -9.0,
        apart,
        tuple(gate.inputs),
        " ".join(dict.fromkeys([*labels, *sketch.effect.tokens, *words])).lower(),
        summary(gate, sketch),
        body,
    )


def summary(gate: Gate, sketch: Sketch) -> Markup:
    """What a closed card shows: the shape, its name, the rule by its names, MCC beside its null, the grade."""
    meter = Markup("")
    if gate.mcc is not None:
        shares = f"--p:{max(gate.mcc, 0):.2f};--q:{max(gate.control_mcc or 0, 0):.2f}"
        meter = Markup('<b>{:.2f}</b><i class="meter" style="{}"></i>').format(gate.mcc, shares)
    grade = {"verified": "✓ verified", "none": ""}.get(sketch.grade, sketch.grade)
    return Markup(
        '{}<span class="kind">{}</span><span class="line">{}</span><span class="sum">{}</span><span class="tick {}">{}</span>'
    ).format(glyph(sketch.kind), kind_name(gate), line_of(sketch), meter, sketch.grade, grade)


def kind_name(gate: Gate) -> str:
    """What the gate's kind is called; a k-of-n by its numbers."""
    return f"{gate.at_least} of {len(gate.excite)}" if str(gate.kind) == "k_of_n" else KIND_NAMES[str(gate.kind)]


def line_of(sketch: Sketch) -> Markup:
    """The rule by the names of its features: (though | yet OR thus) AND NOT was → them."""
    said = Markup("")
    for place, stage in enumerate(sketch.stages):
        said = _joined(said, stage, grouped=place > 0)
    arrow = Markup(' <span class="to">→</span> ') if said else Markup("")
    return said + arrow + _named(sketch.label, sketch.name)


def _joined(before: Markup, stage: Stage, grouped: bool) -> Markup:
    if stage.shape == "k_of_n":
        return Markup("{} of ({})").format(
            stage.at_least, Markup(", ").join(_named(a.label, a.name) for a in stage.arms)
        )
    if stage.shape == "unknown":
        return Markup("")
    if stage.shape == "and_any":
        any_of = _joined(Markup(""), replace(stage, shape="or"), grouped=False)
        return Markup('({}) <span class="op">{}</span> ({})').format(before, _JOINTS["and"], any_of)
    said = Markup("({})").format(before) if grouped and before else before
    for arm in stage.arms:
        word = f"{_JOINTS.get(stage.shape, '')}{' not' if arm.negated else ''}"
        joint = Markup(' <span class="op">{}</span> ').format(word) if said else Markup("")
        said += joint + _named(arm.label, arm.name)
    return said


def _named(label: Any, name: str) -> Markup:
    if not label:
        return Markup('<span class="id">{}</span>').format(name)
    texts = Markup("").join(Markup('<span class="tok" title="{}">{}</span>').format(name, t) for t in label.shown)
    return texts + (Markup("…") if label.more else escape(""))


def apart(gate: Gate, f_in: FeatureRows) -> float:
    """1 less the largest share of rows that two exciters have in common (of the rows on which either is on)."""
    rule = rule_of(gate)
    features = [literal.feature for literal in rule.positive] if rule else []
    if len(features) < 2:
        return 0.0
    rows = [f_in.on(i)[0] for i in features]
    most = 0.0
    for a in range(len(rows)):
        for b in range(a):
            both = len(np.intersect1d(rows[a], rows[b], assume_unique=True))
            most = max(most, both / max(len(rows[a]) + len(rows[b]) - both, 1))
    return 1.0 - most
