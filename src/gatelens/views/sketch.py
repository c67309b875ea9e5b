"""Sketch: what is drawn of a gate. The one place where a `Gate`'s fields are turned into arms, shapes, grades and rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..gates import Gate
from ..gates.agreement import CLEAR
from ..gates.grade import HOLDS, OVER_NULLS
from ..gates.rule import Literal, Op, Rule
from .document import figure
from .labels import Label, unspaced
from .truth import over, rule_of

#: amounts matter where a cut on the weighted sum has an MCC so much above the rule's
AMOUNTS = 0.1
#: rows of a pattern below which its rate is not drawn
FEW = 5

GRADES = {
    "verified": "verified: it holds, and the model itself obeys it when the inputs are set",
    "holds": "holds on held-out rows, clearly better than random parents; not confirmed by intervention",
    "weak": "weak: a rule was found, but held-out rows hardly bear it out",
    "none": "no rule was found",
}


@dataclass(frozen=True)
class Arm:
    """One input of a gate as it is drawn.

    Attributes:
        strength: |weight| times the typical value of the feature; 0 where no wire is known.
        negative: the wire's weight is negative; negated: the rule asks that it be off.
        level: the height above which the feature counts as on, as a share of its largest value.
        rate: share of rows on which the output fired when this input alone of the rule's was on; for a negated one, when it
            was on while the others would open the gate. None where too few such rows were seen.
        hint: contexts, shown on hover; picture: address of a thumbnail.
    """

    feature: int
    label: Label
    strength: float
    negative: bool = False
    negated: bool = False
    level: float = 0.0
    rate: float | None = None
    count: int = 0
    hint: str = ""
    picture: str = ""

    @property
    def name(self) -> str:
        return f"IF_{self.feature}"


@dataclass(frozen=True)
class Stage:
    """One shape with its arms; a stage after the first also takes what the one before gives.

    Attributes:
        shape: or, and, k_of_n, copy, sum, unknown; and_any takes what the one before gives and one of its arms.
    """

    shape: str
    arms: tuple[Arm, ...]
    at_least: int = 1


@dataclass(frozen=True)
class Effect:
    """What an output does further on: the tokens or classes that it favours, and whether they really come.

    Attributes:
        tokens: most favoured first.
        t: of the agreement with what comes next, over documents; None where it was not measured.
        null: the t that one in twenty of other outputs' favours exceeds on the same rows; None where it was not measured.
    """

    tokens: tuple[str, ...] = ()
    t: float | None = None
    null: float | None = None

    @property
    def clear(self) -> float:
        """The t beyond which it is clear: never under what holds where no null was measured."""
        return max(CLEAR, self.null or 0.0)

    @property
    def verdict(self) -> str:
        """Whether what it favours comes, in two words and two figures."""
        if self.t is None:
            return ""
        said = "comes" if self.t > self.clear else "does not come" if self.t < -self.clear else "unclear"
        beside = f"clear from {CLEAR:g}" if self.null is None else f"null {figure(self.null, 1)}"
        return f"{said}, t {figure(self.t, 1)}; {beside}"


@dataclass(frozen=True)
class Moment:
    """What a gate does on one row.

    Attributes:
        inputs: input feature -> whether its literal is on, and its value.
        said: what the rule says. came: the output's value; fired: whether that is above its level.
    """

    inputs: Mapping[int, tuple[bool, float]]
    said: bool
    came: float
    fired: bool

    @property
    def words(self) -> str:
        """What the rule says, and what came."""
        return f"here the rule says {'on' if self.said else 'off'}, the output is {'on' if self.fired else 'off'}"


@dataclass(frozen=True)
class Sketch:
    """A gate as it is drawn, with nothing left to decide.

    Attributes:
        share: of rows on which the output is on; kept: of its firings that are above its level, None without a level.
        when_on, when_off: share of rows on which it fired where the rule says on, and where it says off.
        beside: wires that the rule does not name.
        moment: what it does on one row, where it is drawn for that.
    """

    out: int
    label: Label
    kind: str
    grade: str
    stages: tuple[Stage, ...]
    amounts: bool = False
    share: float | None = None
    kept: float | None = None
    when_on: float | None = None
    when_off: float | None = None
    beside: int = 0
    effect: Effect = field(default_factory=Effect)
    hint: str = ""
    picture: str = ""
    moment: Moment | None = None

    @property
    def name(self) -> str:
        return f"OF_{self.out}"

    @property
    def arms(self) -> list[Arm]:
        return [arm for stage in self.stages for arm in stage.arms]

    @property
    def hatched(self) -> bool:
        """Whether its shapes show that amounts matter; those of a copy always do."""
        return self.amounts and self.grade != "none" and self.stages[0].shape != "copy"


def _nothing(side: str, feature: int) -> str:
    return ""


@dataclass(frozen=True)
class Known:
    """What is known of features beside the gate itself: each is asked with a side ("in" or "out") and a feature.

    Attributes:
        label: a name; hint: contexts as text; picture: address of a thumbnail.
        typical: mean of its positive values; None where no rows are at hand.
        largest: its largest value, by which levels are scaled; effect: of an output, where its gate has none; output: what an
            output of the model is called; marks: whether an output fires mostly on punctuation.
    """

    label: Callable[[str, int], str | Label] = _nothing
    hint: Callable[[str, int], str] = _nothing
    picture: Callable[[str, int], str] = _nothing
    typical: Callable[[int], float] | None = None
    largest: Callable[[int], float] | None = None
    effect: Callable[[int], Effect] | None = None
    output: Callable[[int], str] | None = None
    marks: Callable[[int], bool] | None = None


def grade_of(gate: Gate) -> str:
    """verified, holds, weak or none: how far the evidence carries the rule."""
    if gate.rule is not None:
        return str(gate.grade)
    if rule_of(gate) is None:
        return "none"
    if gate.verified is True and str(gate.kind) != "adder":
        return "verified"
    return "holds" if (gate.mcc or 0.0) >= max(HOLDS, (gate.control_mcc or 0.0) + OVER_NULLS) else "weak"


def amounts_matter(gate: Gate) -> bool:
    """Whether how much its inputs are on decides clearly better than which of them are."""
    if gate.evidence is not None and gate.evidence.cut_mcc is not None and gate.mcc is not None:
        return gate.evidence.cut_mcc >= gate.mcc + AMOUNTS
    return str(gate.kind) == "adder" or gate.magnitude == "adder"


def sketch_of(gate: Gate, known: Known | None = None) -> Sketch:
    """Everything that a drawing of the gate shows."""
    known = known or Known()
    counted = _counted(gate)
    arms = _arms(gate, known, counted)
    when_on, when_off = counted.rates() if counted is not None else (gate.precision, None)
    return Sketch(
        gate.out,
        Label.of(known.label("out", gate.out)),
        str(gate.kind),
        grade_of(gate),
        _stages(gate, arms),
        amounts=amounts_matter(gate),
        share=gate.base_rate if gate.firings else None,
        kept=gate.evidence.kept if gate.evidence is not None and gate.level else None,
        when_on=when_on,
        when_off=when_off,
        beside=sum(w != 0 and i not in arms for i, w in zip(gate.inputs, gate.weights, strict=True)),
        effect=_effect(gate, known),
        hint=known.hint("out", gate.out),
        picture=known.picture("out", gate.out),
    )


#: wires drawn of a gate without a rule; tokens or classes that it favours
UNRULED, FAVOURED = 4, 3


def _effect(gate: Gate, known: Known) -> Effect:
    """What the gate says of its effect, by the names of the model's outputs; else what is known of it without agreement."""
    if gate.effect is not None and known.output is not None:
        names = [known.output(i) for i in gate.effect.favoured[:FAVOURED]]
        return Effect(tuple(unspaced(name) for name in names), gate.effect.t, gate.effect.null)
    return known.effect(gate.out) if known.effect else Effect()


def drawn_inputs(gate: Gate) -> list[int]:
    """The inputs that the rule names, in its order; those of the strongest wires where there is no rule."""
    rule = rule_of(gate)
    return list(rule.features) if rule else list(gate.inputs[:UNRULED])


def _stages(gate: Gate, arms: dict[int, Arm]) -> tuple[Stage, ...]:
    """Literals of one operation in one shape, each shape's output into the next; AND and AND NOT share theirs."""
    rule = rule_of(gate)
    if rule is None:
        return (Stage("unknown", tuple(arms.values())),)
    head = tuple(arms[literal.feature] for literal in rule.head)
    stages = [Stage("k_of_n" if len(head) > 1 else "copy", head, rule.at_least)]
    for op, literal in rule.steps:
        shape, arm, last = "or" if op == Op.OR else "and", arms[literal.feature], stages[-1]
        if last.shape in ("copy", shape):
            stages[-1] = Stage(shape, (*last.arms, arm))
        else:
            stages.append(Stage(shape, (arm,)))
    if rule.also:
        stages.append(Stage("and_any", tuple(arms[literal.feature] for literal in rule.also)))
    return tuple(stages)


def _arm(gate: Gate, literal: Literal, negated: bool, known: Known, counted: _Counted | None) -> Arm:
    feature = literal.feature
    weight = dict(zip(gate.inputs, gate.weights, strict=True)).get(feature, 0.0)
    rate, count = counted.alone(literal) if counted is not None else (None, 0)
    largest = known.largest(feature) if known.largest and literal.level else 0.0
    return Arm(
        feature,
        Label.of(known.label("in", feature)),
        abs(weight) * (known.typical(feature) if known.typical else 1.0),
        negative=weight < 0,
        negated=negated,
        level=min(literal.level / largest, 1.0) if largest > 0 else 0.5 if literal.level else 0.0,
        rate=rate,
        count=count,
        hint=known.hint("in", feature),
        picture=known.picture("in", feature),
    )


def _arms(gate: Gate, known: Known, counted: _Counted | None) -> dict[int, Arm]:
    rule = rule_of(gate)
    if rule is None:
        return {i: _arm(gate, Literal(i), False, known, None) for i in drawn_inputs(gate)}
    off = set(rule.negative)
    return {literal.feature: _arm(gate, literal, literal in off, known, counted) for literal in rule.literals}


@dataclass(frozen=True)
class _Counted:
    """The observed table over the rule's literals alone.

    Attributes:
        on: [patterns, literals] which are on, in the rule's order; count, fired: rows of each pattern.
    """

    rule: Rule
    on: np.ndarray
    count: np.ndarray
    fired: np.ndarray

    def alone(self, literal: Literal) -> tuple[float | None, int]:
        """(rate, rows) of the output where this literal alone is on; for a negated one, where it alone keeps the rule off."""
        place = self.rule.features.index(literal.feature)
        if literal in self.rule.negative:
            without = self.on.copy()
            without[:, place] = False
            return self.share(self.on[:, place] & self.rule.evaluate(without) & ~self.rule.evaluate(self.on))
        return self.share(self.on[:, place] & (self.on.sum(1) == 1))

    def rates(self) -> tuple[float | None, float | None]:
        """Share of rows on which the output fired where the rule says on, and where it says off."""
        says = self.rule.evaluate(self.on)
        return self.share(says)[0], self.share(~says)[0]

    def share(self, chosen: np.ndarray) -> tuple[float | None, int]:
        rows = int(self.count[chosen].sum())
        return (float(self.fired[chosen].sum() / rows) if rows >= FEW else None), rows


def _counted(gate: Gate) -> _Counted | None:
    """None where the table does not hold all literals, or there is no rule."""
    rule = rule_of(gate)
    if gate.table is None or rule is None:
        return None
    held = list(gate.inputs[: gate.table.patterns.shape[1]])
    if not set(rule.features) <= set(held):
        return None
    columns = [held.index(i) for i in rule.features]
    ordered = sorted(columns)
    table = over(gate.table, ordered)
    if table is None:
        return None
    on = table.patterns.numpy()[:, [ordered.index(c) for c in columns]]
    return _Counted(rule, on, table.count.numpy(), table.fired.numpy())
