"""Gate cards: one output feature's gate as what a person reads: equation, rule in words, evidence, table, examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..evaluation.rule_counts import OFTEN
from ..gates import Gate, GateKind
from . import card_lines
from .context_lines import context_line, context_lines
from .document import Html, fragment
from .drawing import KIND_NAMES
from .evidence import evidence
from .index import Row, kind_name, row_of
from .labels import UNNAMED, Label
from .picture import drawn
from .sketch import GRADES, Known, Sketch, drawn_inputs, grade_of, sketch_of
from .truth import Pattern, patterns, shown_inputs


@dataclass(frozen=True)
class Term:
    """One wire of the equation."""

    feature: int
    weight: float
    label: Label = UNNAMED


@dataclass(frozen=True)
class Examples:
    """Rows of one kind: token windows, or one strip of pictures with a caption each."""

    name: str
    note: str = ""
    windows: Sequence[Any] = ()
    strip: str = ""
    shown: int = 0
    captions: Sequence[str] = ()
    largest: float = 0.0

    @property
    def lines(self) -> list[Markup]:
        """Each window as a line of shaded tokens."""
        return [context_line(window, self.largest) for window in self.windows]

    @property
    def together(self) -> Markup:
        """All lines as one."""
        return context_lines(self.windows, self.largest)


@dataclass(frozen=True)
class FeatureView:
    """What a feature responds to: examples, a pixel field with the mean of the top pictures, its density."""

    feature: int
    name: str
    label: str = ""
    sign: str = ""
    groups: Sequence[Examples] = ()
    field_url: str = ""
    field_top: float = 0.0
    field_bad: int = 0
    mean_url: str = ""
    density: str = ""
    firings: int = 0
    rows: int = 0
    largest: float = 0.0
    link: str = ""


@dataclass(frozen=True)
class Parent:
    """An input as a card shows it; without markup of its own, the page's script puts the feature's there."""

    feature: int
    sign: str
    markup: str | Markup = ""


@dataclass(frozen=True)
class Card:
    """A gate with everything that is shown of it."""

    gate: Gate
    segment: str
    anchor: str
    sketch: Sketch
    terms: Sequence[Term]
    table: Sequence[Pattern]
    rule: str
    label: Label = UNNAMED
    output: FeatureView | None = None
    parents: Sequence[Parent] = ()
    misses: Sequence[Examples] = ()
    logits: str | Markup = ""
    panels: str | Markup = ""
    sentence: str = ""

    @property
    def evidence(self) -> list[tuple[str, str, str]]:
        return evidence(self.gate)

    @property
    def kind(self) -> str:
        return str(self.gate.kind)

    @property
    def kind_name(self) -> str:
        return kind_name(self.gate)

    @property
    def columns(self) -> list[int]:
        """The features of the truth table's columns."""
        return [self.gate.inputs[c] for c in shown_inputs(self.gate)]

    @property
    def left_out(self) -> int:
        """Inputs of the gate's table that are counted together, for the rule does not name them."""
        return self.gate.table.patterns.shape[1] - len(self.columns) if self.gate.table is not None else 0

    @property
    def verdict(self) -> str:
        undecided = "undecided by intervention" if self.gate.intervention is not None else "not tested by intervention"
        return {
            None: undecided,
            True: "verified by intervention",
            False: "not confirmed by intervention",
        }[self.gate.verified]

    @property
    def picture(self) -> Markup:
        return Markup(drawn(self.sketch))

    @property
    def row(self) -> Row:
        """Its line in an index."""
        return row_of(self.gate, self.sketch, self.anchor, self.centres)

    @property
    def centres(self) -> list[str]:
        """The tokens on which the output is strongest, each once."""
        windows = [w for e in (self.output.groups if self.output else ()) for w in e.windows]
        return list(dict.fromkeys(t.text.strip() for w in windows for t in w.tokens if t.centre))


def card_of(
    gate: Gate,
    segment: str = "",
    labels: Callable[[str, int], Any] | None = None,
    anchor: str = "",
    sketch: Sketch | None = None,
    **rest: Any,
) -> Card:
    """What a card shows of a gate by itself.

    Args:
        labels: ("in" | "out", feature) -> text or `Label`, for names of features where there are any.
        sketch: what is drawn of it; None for what the gate says by itself.
    """

    def name(side: str, feature: int) -> Label:
        return Label.of(labels(side, feature) if labels else "")

    return Card(
        gate,
        segment,
        anchor or f"gate-{gate.out}",
        sketch or sketch_of(gate, Known(label=name)),
        [Term(i, w, name("in", i)) for i, w in zip(gate.inputs, gate.weights, strict=True)],
        patterns(gate),
        rule_in_words(gate),
        name("out", gate.out),
        **rest,
    )


def card(gate: Gate, segment: str = "", labels: Callable[[str, int], Any] | None = None) -> Html:
    """One gate's card by itself, as a fragment without examples."""
    return Html(str(card_list([card_of(gate, segment, labels)], opened=1)), whole=False)


def body_of(card: Card) -> Markup:
    """What is seen of a card when it is open."""
    gate = card.gate
    return fragment(
        "packed.html.j2",
        c=card,
        g=gate,
        equation=card_lines.equation(gate, card.label, card.terms),
        facts=card_lines.facts(card.evidence),
        table_rows=card_lines.table_rows(card.table, gate.intervention is not None),
    )


def card_list(cards: Sequence[Card], opened: int = 0) -> Markup:
    """Cards one under the other, the first ones open."""
    bodies = [body_of(c) for c in cards]
    return fragment("cards.html.j2", cards=cards, bodies=bodies, opened=opened)


def order_key(gate: Gate, marks: bool = False) -> tuple:
    """By evidence: grade, whether the output fires often, MCC, firing count; never by hand. An MCC of a handful of rows says little.

    Args:
        marks: the output fires mostly on punctuation: it comes after the others of its grade.
    """
    return (
        [*GRADES].index(grade_of(gate)),
        marks,
        gate.firings < OFTEN,
        -(gate.mcc if gate.mcc is not None else -1.0),
        -gate.firings,
        gate.out,
    )


def lead_key(gate: Gate) -> tuple:
    """The order of the gates that are seen first: those of several inputs before copies of the same grade, else by evidence."""
    grade, *rest = order_key(gate)
    return (grade, len(drawn_inputs(gate)) == 1, *rest)


def rule_in_words(gate: Gate) -> str:
    """The claim as a sentence."""
    kind = str(gate.kind)
    if kind == "not_read":
        return f"No rule: {_spelled(gate.why) or 'no reason was recorded'}."
    claim = _condition(gate)
    if kind == "adder":
        nearest = f" The nearest rule of on and off: {claim}." if claim else ""
        return f"Adds up its inputs: amounts decide, not the pattern.{nearest}"
    return f"On when {claim}." if claim else "No rule over its inputs was recorded."


def _condition(gate: Gate) -> str:
    """When the rule says on, as a clause; empty without a rule."""
    if gate.rule is not None and (gate.rule.kind() == GateKind.MIXED or any(i.level for i in gate.rule.literals)):
        return str(gate.rule)
    names = [f"IF_{i}" for i in gate.excite]
    if not names:
        return ""
    if len(names) == 1:
        core = f"{names[0]} is on"
    elif gate.at_least >= len(names):
        core = f"{_listed(names, 'and')} are all on" if len(names) > 2 else f"both {_listed(names, 'and')} are on"
    elif gate.at_least == 1:
        core = f"{_listed(names, 'or')} is on"
    else:
        core = f"at least {gate.at_least} of {_listed(names, 'and')} are on"
    off = [f"IF_{i}" for i in gate.inhibit]
    tail = f", unless {_listed(off, 'or')} is on" if off else ""
    return f"{core}{tail}"


def _spelled(why: str) -> str:
    """A reason with the name of the rule that fell, which it begins with, spelled as elsewhere on the page."""
    for kind, name in KIND_NAMES.items():
        if why.startswith(kind.replace("_", "-") + " "):
            return f"{name}{why[len(kind) :]}"
    return why


def _listed(names: Sequence[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
