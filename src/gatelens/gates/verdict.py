"""Verified or not: whether wires, natural table and interventional table say the same."""

from __future__ import annotations

import numpy as np

from .evidence import Cell
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
        None with the reason when one of the two kinds of row has fewer than `min_count` rows.
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
    was_on, cell = worst
    says = "open" if cell.is_open else "closed"
    before = "fired" if was_on else "did not fire"
    return False, (
        f"tables disagree: with {spell(cell, gate)} set in the model, {cell.rate:.0%} of {cell.count} rows that "
        f"{before} before fire; the rule says {says}"
    )


def _worst(rule: Rule, table: SetTable) -> tuple[bool, Cell] | None:
    """The set pattern against which most rows of one kind decide, more than half; None when there is none."""
    codes = np.arange(len(table.was_on.count))
    is_open = rule.open(codes)
    found, share = None, 0.5
    for was_on, cells in ((True, table.was_on), (False, table.was_off)):
        rate = cells.fired / np.maximum(cells.count, 1)
        against = np.where(cells.count > 0, np.where(is_open, 1 - rate, rate), 0.0)
        code = int(np.argmax(against))
        if against[code] > share:
            share = against[code]
            places = range(cells.parents)
            on, off = (tuple(j for j in places if code >> j & 1 == bit) for bit in (1, 0))
            found = was_on, Cell(on, off, int(cells.count[code]), float(rate[code]), bool(is_open[code]))
    return found
