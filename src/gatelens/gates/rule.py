"""Rules: what an output is said to obey, as a few literals joined from left to right; plain values without evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from ..errors import DataError


class GateKind(StrEnum):
    """What a gate is, whatever speaks for it. `adder` and `not_read` stand only in files of older versions.

    Examples:
        >>> circuit.gate(2).kind is gl.GateKind.OR
        True
    """

    COPY = "copy"
    OR = "or"
    AND = "and"
    AND_NOT = "and_not"
    K_OF_N = "k_of_n"
    MIXED = "mixed"
    ADDER = "adder"
    NOT_READ = "not_read"

    def __str__(self) -> str:
        return self.value


class Op(StrEnum):
    """How a literal joins what stands to its left."""

    OR = "or"
    AND = "and"
    AND_NOT = "and_not"

    def __str__(self) -> str:
        return self.value

    @property
    def words(self) -> str:
        return self.value.replace("_", " ")


@dataclass(frozen=True, order=True)
class Literal:
    """An input feature above a level: on in a row where its value exceeds `level`."""

    feature: int
    level: float = 0.0

    @property
    def words(self) -> str:
        """IF_3, or IF_3 > 0.52 where the level is not zero."""
        return f"IF_{self.feature} > {self.level:.3g}" if self.level else f"IF_{self.feature}"


@dataclass(frozen=True)
class Rule:
    """A rule over a few literals, evaluated from left to right, without precedence.

    It begins with its `head`: one literal, or of several at least `at_least` (the k-of-n form). Then each step joins one more
    literal to all that stands before it: with steps (OR, b), (AND_NOT, c) a rule that begins with a is (a or b) and not c;
    `a or (b and c)` begins with b: (b and c) or a. Last, at least one of the literals in `also` must be on besides, as a product of two
    sums asks: (a or b) and (c or d). A rule always begins with something that must be on, so that it is off in a
    row without literals, and its rows can be found from the literals' rows alone.

    >>> rule = Rule((Literal(3),), steps=((Op.OR, Literal(7, 0.5)), (Op.AND_NOT, Literal(9))))
    >>> str(rule), str(rule.kind())
    ('(IF_3 or IF_7 > 0.5) and not IF_9', 'mixed')
    >>> rule.evaluate(np.array([[True, False, False], [True, False, True], [False, True, False]]))
    array([ True, False,  True])

    Attributes:
        head: the literals that the rule begins with, one unless it is k-of-n.
        at_least: how many of the head must be on; strictly between 1 and their number where there are several.
        steps: what joins them, in order.
        also: literals of which one must be on besides; none, or two and more (one alone is a step).
    """

    head: tuple[Literal, ...]
    at_least: int = 1
    steps: tuple[tuple[Op, Literal], ...] = ()
    also: tuple[Literal, ...] = ()

    def __post_init__(self):
        several = len(self.head) > 1
        if not (1 < self.at_least < len(self.head) if several else len(self.head) == self.at_least == 1):
            raise DataError(
                "a rule begins with one literal, or with at_least of several, 1 < at_least < their number; got "
                f"{len(self.head)} literals and at_least {self.at_least}. Write OR and AND as steps"
            )
        if len(self.also) == 1:
            raise DataError(
                f"`also` holds two literals or more; got {self.also[0].words} alone. Write it as an AND step"
            )
        features = [literal.feature for literal in self.literals]
        if len(set(features)) < len(features):
            raise DataError(f"a rule names each feature once; got {features}")

    @cached_property
    def literals(self) -> tuple[Literal, ...]:
        """All literals: the head's, then each step's, then `also`. Columns of `evaluate` and `open_rows` are in this order."""
        return self.head + tuple(literal for _, literal in self.steps) + self.also

    @cached_property
    def features(self) -> tuple[int, ...]:
        """The literals' features, in their order."""
        return tuple(literal.feature for literal in self.literals)

    @property
    def positive(self) -> tuple[Literal, ...]:
        """The literals that help to open the rule: all but those under a NOT."""
        return self.head + tuple(literal for op, literal in self.steps if op != Op.AND_NOT) + self.also

    @property
    def negative(self) -> tuple[Literal, ...]:
        """The literals under a NOT."""
        return tuple(literal for op, literal in self.steps if op == Op.AND_NOT)

    def kind(self) -> GateKind:
        """One literal is a copy; steps of one operation give it its kind; k-of-n alone is that; the rest is mixed."""
        ops = {op for op, _ in self.steps}
        if len(ops) > 1 or self.also or (ops and len(self.head) > 1):
            return GateKind.MIXED
        if len(self.head) > 1:
            return GateKind.K_OF_N
        return GateKind(ops.pop().value) if ops else GateKind.COPY

    def evaluate(self, on: Bool[np.ndarray, "rows literals"]) -> Bool[np.ndarray, " rows"]:
        """Where the rule says on, from which literals are on; one column a literal, in the order of `literals`."""
        if on.ndim != 2 or on.shape[1] != len(self.literals):
            raise DataError(f"{self} has {len(self.literals)} literals, a column each; got shape {tuple(on.shape)}")
        n = len(self.head)
        says = on[:, :n].sum(1) >= self.at_least
        last = n + len(self.steps)
        for (op, _), column in zip(self.steps, on.T[n:last], strict=True):
            says = says | column if op == Op.OR else says & column if op == Op.AND else says & ~column
        return says & on[:, last:].any(1) if self.also else says

    def open_rows(self, columns: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " said"]:
        """The rows on which the rule says on, ascending, from the ascending rows on which each literal is on."""
        if len(columns) != len(self.literals):
            raise DataError(f"{self} has {len(self.literals)} literals; got the rows of {len(columns)}")
        n, size = len(self.head), 1 + max((int(column[-1]) for column in columns if len(column)), default=-1)
        times = np.zeros(size, np.uint8)
        for column in columns[:n]:
            times[column] += 1
        says = times >= self.at_least
        last = n + len(self.steps)
        for (op, _), column in zip(self.steps, columns[n:last], strict=True):
            if op == Op.AND:
                column, says = column[says[column]], np.zeros(size, bool)
            says[column] = op != Op.AND_NOT
        if self.also:
            besides = np.zeros(size, bool)
            for column in columns[last:]:
                besides[column] = True
            says &= besides
        return np.flatnonzero(says)

    def without(self, place: int) -> Rule | None:
        """The rule less one of its literals; None where nothing would be left that must be on.

        >>> rule = Rule((Literal(3),), steps=((Op.OR, Literal(7)), (Op.AND_NOT, Literal(9))))
        >>> str(rule.without(0)), str(rule.without(2))
        ('IF_7 and not IF_9', 'IF_3 or IF_7')
        """
        n, last = len(self.head), len(self.head) + len(self.steps)
        if place >= last:
            left = tuple(literal for i, literal in enumerate(self.also, last) if i != place)
            if len(left) > 1:
                return replace(self, also=left)
            return replace(self, steps=(*self.steps, *((Op.AND, literal) for literal in left)), also=())
        if place >= n:
            return replace(self, steps=self.steps[: place - n] + self.steps[place - n + 1 :])
        head, steps = self.head[:place] + self.head[place + 1 :], self.steps
        if not head:
            if not steps or steps[0][0] == Op.AND_NOT:
                return None
            return Rule((steps[0][1],), steps=steps[1:], also=self.also)
        if self.at_least >= len(head):  # all that are left
            return Rule(head[:1], steps=tuple((Op.AND, literal) for literal in head[1:]) + steps, also=self.also)
        return replace(self, head=head)

    def words(self, name: Callable[[Literal], str] | None = None) -> str:
        """The rule in plain English: `(IF_3 or IF_7 > 0.5) and not IF_9`; at least 2 of IF_1, IF_2, IF_3.

        Args:
            name: what to call a literal, its `words` by default.
        """
        name = name or (lambda literal: literal.words)
        text = name(self.head[0])
        if len(self.head) > 1:
            text = f"at least {self.at_least} of {', '.join(map(name, self.head))}"
        before: Op | None = None
        for place, (op, literal) in enumerate(self.steps):
            # only a change of operation needs brackets, and a list "at least 2 of ..." that goes on
            if (before is not None and op != before) or (place == 0 and len(self.head) > 1):
                text = f"({text})"
            text = f"{text} {op.words} {name(literal)}"
            before = op
        if self.also:
            text = f"({text})" if len(self.literals) > len(self.also) + 1 else text
            text = f"{text} and ({' or '.join(map(name, self.also))})"
        return text

    def __str__(self) -> str:
        return self.words()

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; `from_json` reads them back to the same value."""
        return {
            "head": [[literal.feature, literal.level] for literal in self.head],
            "at_least": self.at_least,
            "steps": [[op.value, literal.feature, literal.level] for op, literal in self.steps],
            **({"also": [[literal.feature, literal.level] for literal in self.also]} if self.also else {}),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Rule:
        return cls(
            tuple(Literal(int(feature), float(level)) for feature, level in values["head"]),
            int(values["at_least"]),
            tuple((Op(op), Literal(int(feature), float(level))) for op, feature, level in values["steps"]),
            tuple(Literal(int(feature), float(level)) for feature, level in values.get("also", ())),
        )
