"""Gates made by hand: "at least m of these, none of those", as a rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gatelens.gates import Gate, Grade
from gatelens.gates.rule import Literal, Op, Rule


def rule_of(excite: Sequence[int], inhibit: Sequence[int] = (), at_least: int = 1) -> Rule:
    counted = 1 < at_least < len(excite)
    head = tuple(excite) if counted else tuple(excite[:1])
    op = Op.AND if at_least == len(excite) else Op.OR
    steps = [(op, Literal(i)) for i in excite[len(head) :]] + [(Op.AND_NOT, Literal(i)) for i in inhibit]
    return Rule(tuple(map(Literal, head)), at_least if counted else 1, tuple(steps))


def ruled(
    out: int, excite: Sequence[int], inhibit: Sequence[int] = (), at_least: int = 1, grade: str = "holds", **rest: Any
) -> Gate:
    """A gate with that rule, wires of weight 1 and -1, verified or not by its grade."""
    rule = rule_of(excite, inhibit, at_least)
    weights = (1.0,) * len(excite) + (-1.0,) * len(inhibit)
    given = {"bias": 0.0, "verified": grade == "verified"} | rest
    return Gate(
        out, rule.kind(), (*excite, *inhibit), weights, excite=tuple(excite), inhibit=tuple(inhibit), at_least=at_least,
        rule=rule, grade=Grade(grade), **given,
    )  # fmt: skip
