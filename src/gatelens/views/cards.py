"""Gate cards: one output feature's gate as what a person reads: equation, rule in words, evidence, table, examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from markupsafe import Markup

from ..gates import Gate, TruthTable
from .document import Html, figure, fragment, percent
from .drawing import KIND_NAMES

#: rows of a truth table that are shown one by one; the others are pooled into one
MAX_PATTERNS = 12
#: a pattern seen less often says little; its row is marked
FEW = 10


@dataclass(frozen=True)
class Term:
    """One wire of the equation."""

    feature: int
    weight: float
    label: str = ""

    @property
    def sign(self) -> str:
        return "−" if self.weight < 0 else "+"


@dataclass(frozen=True)
class Pattern:
    """One row of the truth table, as shown. `on` is None for the pooled rest."""

    on: tuple[bool, ...] | None
    count: int
    rate: float | None
    low: float
    high: float
    magnitude: float | None
    rule: bool | None
    set_rate: float | None = None
    set_count: int = 0
    pooled: int = 0

    @property
    def few(self) -> bool:
        return self.count < FEW

    @property
    def agrees(self) -> bool | None:
        """Whether the rule says what most rows of the pattern do; None where too few were seen or no rule is claimed."""
        if self.rule is None or self.rate is None or self.few:
            return None
        return (self.rate > 0.5) == self.rule


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
class Card:
    """A gate with everything that is shown of it."""

    gate: Gate
    segment: str
    anchor: str
    terms: Sequence[Term]
    table: Sequence[Pattern]
    rule: str
    label: str = ""
    output: FeatureView | None = None
    parents: Sequence[FeatureView] = ()
    misses: Sequence[Examples] = ()
    logits: str | Markup = ""
    panels: str | Markup = ""

    @property
    def kind(self) -> str:
        return str(self.gate.kind)

    @property
    def kind_name(self) -> str:
        gate = self.gate
        if self.kind == "k_of_n":
            return f"{gate.at_least} of {len(gate.excite)}"
        return KIND_NAMES[self.kind]

    @property
    def verdict(self) -> str:
        return {
            None: "not tested by intervention",
            True: "verified by intervention",
            False: "not confirmed by intervention",
        }[self.gate.verified]

    @property
    def search(self) -> str:
        """What the index searches: ids, kind, labels; texts of examples are added by the page."""
        names = [
            self.segment,
            f"OF_{self.gate.out}",
            *(f"IF_{i}" for i in self.gate.inputs),
            self.kind_name,
            self.kind,
            self.label,
        ]
        return " ".join([*names, *(t.label for t in self.terms), *self.centres]).lower()

    @property
    def centres(self) -> list[str]:
        """The tokens on which the output is strongest, each once."""
        windows = [w for e in (self.output.groups if self.output else ()) for w in e.windows]
        return list(dict.fromkeys(t.text.strip() for w in windows for t in w.tokens if t.centre))


def card_of(gate: Gate, segment: str = "", labels: Any = None, anchor: str = "", **rest: Any) -> Card:
    """What a card shows of a gate by itself.

    Args:
        labels: ("in" | "out", feature) -> text, for names of features where there are any.
    """
    name = labels or (lambda side, feature: "")
    return Card(
        gate,
        segment,
        anchor or f"gate-{gate.out}",
        [Term(i, w, name("in", i)) for i, w in zip(gate.inputs, gate.weights, strict=True)],
        patterns(gate),
        rule_in_words(gate),
        name("out", gate.out),
        **rest,
    )


def card(gate: Gate, segment: str = "", labels: Any = None) -> Html:
    """One gate's card by itself, as a fragment without examples."""
    return Html(str(card_list([card_of(gate, segment, labels)], opened=1)), whole=False)


def body_of(card: Card) -> Markup:
    """What is seen of a card when it is open."""
    return fragment("packed.html.j2", c=card, g=card.gate)


def card_list(cards: Sequence[Card], opened: int = 0) -> Markup:
    """Cards one under the other, the first ones open."""
    bodies = [body_of(c) for c in cards]
    return fragment("cards.html.j2", cards=cards, bodies=bodies, opened=opened, static=len(cards), pack="", per_pack=1)


def order_key(gate: Gate) -> tuple:
    """By evidence: logic before adders before what was not read; verified, then MCC, then firing count; never by hand."""
    return (
        ("adder", "not_read").index(str(gate.kind)) + 1 if str(gate.kind) in ("adder", "not_read") else 0,
        -(gate.verified is True),
        -(gate.mcc if gate.mcc is not None else -1.0),
        -gate.firings,
        gate.out,
    )


def rule_in_words(gate: Gate) -> str:
    """The claim as a sentence."""
    kind = str(gate.kind)
    if kind == "not_read":
        return f"Not read: {_spelled(gate.why) or 'no reason was recorded'}."
    claim = _condition(gate)
    if kind == "adder":
        nearest = f" The nearest rule of on and off: {claim}." if claim else ""
        return f"Adds up its inputs: amounts decide, not the pattern.{nearest}"
    return f"On when {claim}." if claim else "No rule over its inputs was recorded."


def _condition(gate: Gate) -> str:
    """When the rule says on, as a clause; empty without a rule."""
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


def patterns(gate: Gate) -> list[Pattern]:
    """The observed table, the interventional one beside where it was made; many patterns are cut to the commonest."""
    table = gate.table
    if table is None:
        return []
    lower, upper = table.wilson()
    k = table.patterns.shape[1]
    rows = [
        Pattern(
            tuple(table.patterns[i].tolist()),
            int(table.count[i]),
            float(table.rate[i]) if table.count[i] > 0 else None,
            float(lower[i]),
            float(upper[i]),
            float(table.magnitude[i]) if table.count[i] > 0 else None,
            _rule_says(gate, table.patterns[i].tolist()),
            *_set(gate.intervention, table.patterns[i].tolist()),
        )
        for i in range(len(table.count))
    ]
    shown = [r for r in rows if r.count or r.set_count] if k > 3 else rows
    shown.sort(key=lambda r: -(r.count + r.set_count))
    shown, rarer = shown[:MAX_PATTERNS], shown[MAX_PATTERNS:]
    shown.sort(key=lambda r: (sum(r.on or ()), [not x for x in r.on or ()]))
    unseen = 2**k - len(shown) - len(rarer)
    if rarer:
        shown.append(_pooled(rarer))
    if unseen:
        shown.append(Pattern(None, 0, None, 0.0, 1.0, None, None, pooled=unseen))
    return shown


def _rule_says(gate: Gate, pattern: Sequence[bool]) -> bool | None:
    if not gate.excite:
        return None
    on = {i for i, p in zip(gate.inputs, pattern, strict=False) if p}
    return len(on & set(gate.excite)) >= gate.at_least and not on & set(gate.inhibit)


def _set(table: TruthTable | None, pattern: Sequence[bool]) -> tuple[float | None, int]:
    """Rate and count of a pattern in the interventional table."""
    if table is None:
        return None, 0
    for i, row in enumerate(table.patterns.tolist()):
        if list(row) == list(pattern) and table.count[i] > 0:
            return float(table.rate[i]), int(table.count[i])
    return None, 0


def _pooled(rest: Sequence[Pattern]) -> Pattern:
    n = sum(r.count for r in rest)
    fired = round(sum((r.rate or 0.0) * r.count for r in rest))
    total = sum((r.magnitude or 0.0) * r.count for r in rest)
    lower, upper = TruthTable(
        torch.zeros(1, 0, dtype=torch.bool), torch.tensor([n]), torch.tensor([fired]), torch.zeros(1)
    ).wilson()
    rate = fired / n if n else None
    return Pattern(None, n, rate, float(lower), float(upper), total / n if n else None, None, pooled=len(rest))


def evidence(gate: Gate) -> list[tuple[str, str, str]]:
    """(name, figure, what it means) of everything measured on held-out rows."""
    return [
        ("MCC", figure(gate.mcc), "Matthews correlation of the rule with the output's firing: 1 perfect, 0 chance"),
        (
            "random parents",
            figure(gate.control_mcc),
            "the same for the best rule over random parents of like firing counts: the null",
        ),
        (
            "precision",
            percent(gate.precision),
            "of the rows where the rule says on, the share on which the output fired",
        ),
        ("recall", percent(gate.recall), "of the rows on which the output fired, the share that the rule catches"),
        ("base rate", percent(gate.base_rate), "the share of held-out rows on which the output fired"),
        ("R²", figure(gate.r2), "of the equation's value for this output, over all held-out rows"),
    ]
