"""What stands against a rule on natural rows: reasons not to read it, and things to say beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .evidence import Cell, contradiction, decisive, held_back
from .gate import Gate
from .hypotheses import Rule, explained
from .tables import Cells

#: least share of the table's deviance that a rule's two rates must explain, where amounts matter or the held-out MCC is
#: under `CLEAR`; above it an input that fires the output less surely than another does no harm to the reading
MIN_EXPLAINED, CLEAR = 0.9, 0.75
#: by how much a cut on the weighted sum may beat the rule in held-out MCC before the amounts, not the pattern, decide
GRADED = 0.15
#: and from where on amounts matter
AMOUNTS = 0.05


@dataclass(frozen=True)
class Objections:
    """The bars a rule has to clear."""

    mcc_bar: float
    min_count: int

    def first(self, rule: Rule, fit: Cells, judge: Cells, gate: Gate, cut: float) -> str:
        """The first thing that stands against the rule, in words; "" when nothing does.

        Args:
            fit, judge: the tables that decided it and that judge it, over the first of the gate's inputs.
            cut: held-out MCC of a cut on the weighted sum of the table's parents.
        """
        name = rule.kind.value.replace("_", "-")
        if gate.mcc is None:
            never = "the rule" if gate.firings else "the output"
            return f"{name} could not be judged: on held-out rows {never} never fires"
        if gate.mcc < self.mcc_bar:
            return f"{name} has a held-out MCC of {gate.mcc:.2f}, under {self.mcc_bar:g}"
        both = fit + judge
        for cell in decisive(rule, both):
            if cell.count < self.min_count:
                return f"{name} hangs on {spell(cell, gate)}, seen {cell.count} times of {self.min_count}"
        for cells in (fit, judge):
            if cell := contradiction(rule, cells, self.min_count):
                says = "open" if cell.is_open else "closed"
                fires = f"fires in {cell.rate:.0%} of {cell.count} rows"
                return f"{name} says {says} for {spell(cell, gate)}, which {fires}"
        share = explained(rule, both)
        if share < MIN_EXPLAINED and (cut > gate.mcc + AMOUNTS or gate.mcc < CLEAR):
            return f"{name} explains {share:.0%} of what the table says, under {MIN_EXPLAINED:.0%}: rates go by degrees"
        if cut > gate.mcc + GRADED:
            return f"{name} has a held-out MCC of {gate.mcc:.2f}, a cut on the weighted sum {cut:.2f}: amounts decide"
        return ""

    def notes(self, rule: Rule, cells: Cells, gate: Gate, cut: float) -> Iterator[str]:
        """What must be said beside the rule: inputs it leaves out, cells that cannot be seen, amounts that matter."""
        unused = [j for j in range(cells.parents) if not (rule.excite | rule.inhibit) >> j & 1]
        if unused:
            yield f"the rule leaves out {', '.join(f'IF_{gate.inputs[j]}' for j in unused)}"
        for j in unused:
            rows = held_back(rule, j, cells)
            if gate.weights[j] < 0 and rows < self.min_count:
                yield f"whether IF_{gate.inputs[j]} holds it back is not seen: on beside it in {rows} rows"
        for inhibitor in rule.inhibitors:
            yield from self._minus(rule, inhibitor, cells, gate)
        if gate.mcc is not None and cut > gate.mcc + AMOUNTS:
            yield f"amounts matter: a cut on the weighted sum has an MCC of {cut:.2f}"

    def _minus(self, rule: Rule, inhibitor: int, cells: Cells, gate: Gate) -> Iterator[str]:
        """Where an inhibitor is hardly ever on without the exciter: AND-NOT is a difference of nested features."""
        if len(rule.exciters) != 1:
            return
        exciter = rule.exciters[0]
        codes = np.arange(len(cells.count))
        on = codes >> inhibitor & 1 == 1
        beside = cells.count[on & (codes >> exciter & 1 == 1)].sum()
        without = cells.count[on].sum() - beside
        if without < self.min_count:
            a, b = gate.inputs[exciter], gate.inputs[inhibitor]
            yield (
                f"IF_{a} minus IF_{b}: IF_{b} is on without IF_{a} in {int(without)} of {int(beside + without)} rows, "
                "so that cell cannot be seen"
            )


def spell(cell: Cell, gate: Gate) -> str:
    """A pattern by the names of its features."""
    on = " and ".join(f"IF_{gate.inputs[j]}" for j in cell.on)
    off = ", ".join(f"IF_{gate.inputs[j]}" for j in cell.off)
    if not on:
        return "all off"
    return f"{on} on{f' with {off} off' if off else ''}"
