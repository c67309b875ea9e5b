"""Truth tables as a card shows them: the rule's inputs, the commonest patterns, the rest pooled and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..gates import Gate, TruthTable

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


def patterns(gate: Gate) -> list[Pattern]:
    """The observed table, the interventional one beside where it was made; many patterns are cut to the commonest."""
    if gate.table is None:
        return []
    columns = shown_inputs(gate)
    table, set_to = over(gate.table, columns), over(gate.intervention, columns)
    named = [gate.inputs[c] for c in columns]
    lower, upper = table.wilson()
    k = len(columns)
    rows = [
        Pattern(
            tuple(table.patterns[i].tolist()),
            int(table.count[i]),
            float(table.rate[i]) if table.count[i] > 0 else None,
            float(lower[i]),
            float(upper[i]),
            float(table.magnitude[i]) if table.count[i] > 0 else None,
            _rule_says(gate, named, table.patterns[i].tolist()),
            *_set(set_to, table.patterns[i].tolist()),
        )
        for i in range(len(table.count))
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


def _rule_says(gate: Gate, named: Sequence[int], pattern: Sequence[bool]) -> bool | None:
    if gate.rule is not None:
        state = dict(zip(named, pattern, strict=True))
        return bool(gate.rule.evaluate(np.array([[state.get(i, False) for i in gate.rule.features]]))[0])
    if not gate.excite:
        return None
    on = {i for i, p in zip(named, pattern, strict=True) if p}
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
