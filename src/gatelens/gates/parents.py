"""The parents of an output: which of its wires a table is made of, and what must be said about the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..connectors import Connector
from .tables import Columns

#: an input feature that is on in more than this share of the rows says little when it is on
DENSE = 0.2
#: two inputs of one sign are copies when at least this share of the rows with either on has both on
COPY = 0.9


@dataclass(frozen=True)
class Wires:
    """An output's living inputs.

    Attributes:
        inputs, weights: those of the table first, the strongest (weight times typical value) at the head.
        table: the first of them, which a table is made over.
        notes: what a reader must know about the rest.
    """

    inputs: tuple[int, ...]
    weights: tuple[float, ...]
    table: tuple[int, ...]
    notes: tuple[str, ...]


class Parents:
    """Finds each output's parents.

    Attributes:
        firings, mean_on: [m] rows on which each input feature is on, and its mean value there.
    """

    def __init__(self, connector: Connector, f_in: Columns, max_inputs: int):
        self.f_in, self.max_inputs = f_in, max_inputs
        self.firings, self.mean_on = f_in.firings(), f_in.mean_on()
        self.crow = connector.weight.crow_indices().numpy()
        self.col = connector.weight.col_indices().numpy()
        self.value = connector.weight.values().detach().double().numpy()
        self.mark = np.zeros(f_in.rows, bool)

    def of(self, out: int) -> Wires:
        start, stop = self.crow[out : out + 2]
        real = self.value[start:stop] != 0
        parents, weights = self.col[start:stop][real], self.value[start:stop][real]
        alive = self.firings[parents] > 0
        dead = parents[~alive].tolist()
        parents, weights = parents[alive], weights[alive]
        order = np.argsort(-np.abs(weights) * self.mean_on[parents], kind="stable")
        weight = dict(zip(parents[order].tolist(), weights[order].tolist(), strict=True))
        table, copies, beyond = self._sorted(weight)
        inputs = [*table, *copies, *beyond]
        return Wires(
            inputs=tuple(inputs),
            weights=tuple(weight[p] for p in inputs),
            table=tuple(table),
            notes=tuple(self._notes(dead, inputs, copies, len(table))),
        )

    def _sorted(self, weight: dict[int, float]) -> tuple[list[int], dict[int, int], list[int]]:
        """Inputs, the strongest first: those of the table, copies of one of these (copy -> original), the rest."""
        table: list[int] = []
        copies: dict[int, int] = {}
        beyond: list[int] = []
        for parent in weight:
            same_sign = [p for p in table if weight[p] * weight[parent] > 0]
            original = next((p for p in same_sign if self._same(p, parent)), None)
            if original is not None:
                copies[parent] = original
            else:
                (table if len(table) < self.max_inputs else beyond).append(parent)
        return table, copies, beyond

    def _same(self, a: int, b: int) -> bool:
        """Whether two features are on in nearly the same rows."""
        few, many = sorted((int(self.firings[a]), int(self.firings[b])))
        if few < COPY * many:
            return False
        rows_a, rows_b = self.f_in.on(a)[0], self.f_in.on(b)[0]
        self.mark[rows_a] = True
        both = int(self.mark[rows_b].sum())
        self.mark[rows_a] = False
        return both >= COPY * (few + many - both)

    def _notes(self, dead: list[int], inputs: list[int], copies: dict[int, int], table: int) -> list[str]:
        notes = []
        if dead:
            notes.append(f"left out, never on: {_names(dead)}")
        notes += [f"IF_{copy} fires with IF_{original} and is read as one with it" for copy, original in copies.items()]
        if beyond := len(inputs) - len(copies) - table:
            notes.append(f"tables over the {table} strongest inputs, pooled over {beyond} weaker ones")
        if dense := [p for p in inputs if self.firings[p] > DENSE * self.f_in.rows]:
            notes.append(f"on in over {DENSE:.0%} of rows: {_names(dense)}")
        return notes


def _names(features: list[int], most: int = 6) -> str:
    shown = ", ".join(f"IF_{f}" for f in features[:most])
    return shown + (f" and {len(features) - most} more" if len(features) > most else "")
