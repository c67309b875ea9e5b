"""Verified or not: whether wires, natural table and interventional table say the same."""

from __future__ import annotations

import numpy as np

from .evidence import Cell, Z, wilson
from .gate import Gate
from .hypotheses import Rule
from .interventions import SetTable
from .objections import spell


def verdict(rule: Rule, gate: Gate, table: SetTable, min_count: int) -> tuple[bool | None, str]:
    """Whether a rule that the natural table carries is also what the wires and the real model say, and why not.

    The wires agree when exciters have positive and inhibitors negative weights. The model agrees when, for every
    pattern that was set, most rows end as the rule says. Rows that fired untouched and rows that did not are judged
    apart, since each alone could agree by doing nothing.

    Returns:
        True, False, or None (undecided) with the reason: one of the two kinds of row has fewer than `min_count` rows,
        or a pattern goes against the rule in about half of them.
    """
    for place, wanted in [*((j, 1) for j in rule.exciters), *((j, -1) for j in rule.inhibitors)]:
        if gate.weights[place] * wanted < 0:
            role = "excites" if wanted > 0 else "inhibits"
            return False, f"tables and wires disagree: IF_{gate.inputs[place]} {role}, its wire has the other sign"
    for name, cells in (("fires", table.was_on), ("does not fire", table.was_off)):
        if cells.count.max() < min_count:
            return None, f"not tried in the model: the output {name} on {int(cells.count.max())} of the rows given"
    worst = _worst(rule, table)
    if worst is None:
        return True, ""
    was_on, clearly, cell = worst
    says = "open" if cell.is_open else "closed"
    before = "fired" if was_on else "did not fire"
    return (False if clearly else None), (
        f"{'tables disagree' if clearly else 'the model is undecided'}: with {spell(cell, gate)} set in the model, "
        f"{cell.rate:.0%} of {cell.count} rows that {before} before fire; the rule says {says}"
    )


def _worst(rule: Rule, table: SetTable) -> tuple[bool, bool, Cell] | None:
    """The set pattern that most rows of one kind decide against, more than half of them; None when there is none.

    Returns:
        Whether those rows fired untouched; whether the whole Wilson interval is beyond a half; the pattern.
    """
    codes = np.arange(len(table.was_on.count))
    is_open = rule.open(codes)
    found, share = None, 0.5
    for was_on, cells in ((True, table.was_on), (False, table.was_off)):
        against = np.where(is_open, cells.count - cells.fired, cells.fired)
        rate = against / np.maximum(cells.count, 1)
        code = int(np.argmax(rate))
        if rate[code] > share:
            share = rate[code]
            clearly = bool(wilson(float(against[code]), float(cells.count[code]), Z)[0] > 0.5)
            on, off = (tuple(j for j in range(cells.parents) if code >> j & 1 == bit) for bit in (1, 0))
            fires = float(cells.fired[code] / cells.count[code])
            found = was_on, clearly, Cell(on, off, int(cells.count[code]), fires, bool(is_open[code]))
    return found
