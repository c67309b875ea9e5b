"""Truth tables as a card shows them: the rule's inputs, the commonest patterns, the rest pooled and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..gates import Gate, TruthTable
from ..gates.rule import Literal, Op, Rule

#: rows of a truth table that are shown one by one; the others are pooled into one
MAX_PATTERNS = 12
#: a pattern seen less often says little; its row is marked
FEW = 10


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


def rule_of(gate: Gate) -> Rule | None:
    """The gate's rule; of one that names only what helps and what holds back, the rule that these spell; None without one."""
    if gate.rule is not None or not gate.excite or str(gate.kind) == "not_read":
        return gate.rule
    exciters, k = [Literal(i) for i in gate.excite], min(gate.at_least, len(gate.excite))
    off = tuple((Op.AND_NOT, Literal(i)) for i in gate.inhibit)
    if 1 < k < len(exciters):
        return Rule(tuple(exciters), k, off)
    op = Op.OR if k == 1 else Op.AND
    return Rule((exciters[0],), 1, (*((op, literal) for literal in exciters[1:]), *off))


def patterns(gate: Gate) -> list[Pattern]:
    """The observed table, the interventional one beside where it was made; many patterns are cut to the commonest."""
    if gate.table is None:
        return []
    columns = shown_inputs(gate)
    table = over(gate.table, columns) or gate.table
    set_to = _set_rates(over(gate.intervention, columns))
    on, k = table.patterns.tolist(), len(columns)
    rates = table.fired.numpy() / np.maximum(table.count.numpy(), 1)
    says = _rule_says(gate, [gate.inputs[c] for c in columns], table.patterns.numpy())
    lower, upper = (ends.tolist() for ends in table.wilson())
    rows = [
        Pattern(
            tuple(pattern),
            count,
            rate if count > 0 else None,
            low,
            high,
            mean if count > 0 else None,
            rule,
            *set_to.get(tuple(pattern), (None, 0)),
        )
        for pattern, count, rate, low, high, mean, rule in zip(
            on, table.count.tolist(), rates.tolist(), lower, upper, table.magnitude.tolist(), says, strict=True
        )
    ]
    shown = [r for r in rows if r.count or r.set_count] if k > 3 else rows
    # half of the places are kept for patterns on which the rule says on: without them nobody can see whether it holds
    shown.sort(key=lambda r: -(r.count + r.set_count))
    kept = {id(r) for r in [r for r in shown if r.rule][: MAX_PATTERNS // 2]}
    shown.sort(key=lambda r: (id(r) not in kept, -(r.count + r.set_count)))
    shown, rarer = shown[:MAX_PATTERNS], shown[MAX_PATTERNS:]
    shown.sort(key=lambda r: (sum(r.on or ()), [not x for x in r.on or ()]))
    unseen = 2**k - len(shown) - len(rarer)
    if rarer:
        shown.append(_pooled(rarer))
    if unseen:
        shown.append(Pattern(None, 0, None, 0.0, 1.0, None, None, pooled=unseen))
    return shown


def shown_inputs(gate: Gate) -> list[int]:
    """Columns of the gate's table that the card shows: those that the rule names where the whole table is too long."""
    k = 0 if gate.table is None else gate.table.patterns.shape[1]
    named = [c for c in range(k) if gate.inputs[c] in gate.excite or gate.inputs[c] in gate.inhibit]
    return named if k > 3 and named else list(range(k))


def over(table: TruthTable | None, columns: Sequence[int]) -> TruthTable | None:
    """The table over some of its inputs: rows that differ only in the others are counted together."""
    if table is None or len(columns) == table.patterns.shape[1]:
        return table
    patterns, place = torch.unique(table.patterns[:, list(columns)], dim=0, return_inverse=True)

    def total(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(patterns), dtype=values.dtype).index_add(0, place, values)

    count = total(table.count)
    mean = total(table.magnitude * table.count) / count.clamp_min(1)
    return TruthTable(patterns, count, total(table.fired), mean, table.source)


def _rule_says(gate: Gate, named: Sequence[int], patterns: np.ndarray) -> list[bool] | list[None]:
    """What the rule says of each pattern; of inputs that are not shown, it takes each as off."""
    rule = rule_of(gate)
    if rule is None:
        return [None] * len(patterns)
    place = {feature: column for column, feature in enumerate(named)}
    off = np.zeros(len(patterns), bool)
    on = [patterns[:, place[i]] if i in place else off for i in rule.features]
    return rule.evaluate(np.stack(on, axis=1)).tolist()


def _set_rates(table: TruthTable | None) -> dict[tuple[bool, ...], tuple[float, int]]:
    """Pattern -> rate and count in the interventional table, of those that were set."""
    if table is None:
        return {}
    found = zip(table.patterns.tolist(), table.rate.tolist(), table.count.tolist(), strict=True)
    return {tuple(pattern): (rate, count) for pattern, rate, count in found if count > 0}


def _pooled(rest: Sequence[Pattern]) -> Pattern:
    n = sum(r.count for r in rest)
    fired = round(sum((r.rate or 0.0) * r.count for r in rest))
    total = sum((r.magnitude or 0.0) * r.count for r in rest)
    lower, upper = TruthTable(
        torch.zeros(1, 0, dtype=torch.bool), torch.tensor([n]), torch.tensor([fired]), torch.zeros(1)
    ).wilson()
    rate = fired / n if n else None
    return Pattern(None, n, rate, float(lower), float(upper), total / n if n else None, None, pooled=len(rest))
