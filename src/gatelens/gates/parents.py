"""The wires of an output, the strongest first, and what must be said about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..connectors import Connector
from .tables import Columns

#: an input feature that is on in more than this share of the rows says little when it is on
DENSE = 0.2


@dataclass(frozen=True)
class Wires:
    """An output's wires from features that are ever on.

    Attributes:
        inputs, weights: the strongest (weight times typical value) at the head.
        notes: what a reader must know about the others, and about inputs that say little.
        sides: of a product of two sums, the features of each; nothing for one sum.
    """

    inputs: tuple[int, ...]
    weights: tuple[float, ...]
    notes: tuple[str, ...]
    sides: tuple[frozenset[int], ...] = ()

    def strongest(self, most: int) -> tuple[int, ...]:
        """So many inputs; of a product half from either sum."""
        if not self.sides:
            return self.inputs[:most]
        halves = [[i for i in self.inputs if i in side][: most // 2] for side in self.sides]
        return tuple(dict.fromkeys(i for half in halves for i in half))


class Parents:
    """Finds each output's wires.

    Attributes:
        firings, mean_on: [m] rows on which each input feature is on, and its mean value there.
    """

    def __init__(self, connector: Connector, f_in: Columns):
        self.rows, self.firings, self.mean_on = f_in.rows, f_in.firings(), f_in.mean_on()
        self.connector = connector
        self.crow = connector.weight.crow_indices().numpy()
        self.col = connector.weight.col_indices().numpy()
        self.value = connector.weight.values().detach().double().numpy()

    def of(self, out: int) -> Wires:
        start, stop = self.crow[out : out + 2]
        real = self.value[start:stop] != 0
        parents, weights = self.col[start:stop][real], self.value[start:stop][real]
        alive = self.firings[parents] > 0
        dead = parents[~alive].tolist()
        parents, weights = parents[alive], weights[alive]
        order = np.argsort(-np.abs(weights) * self.mean_on[parents], kind="stable")
        inputs = tuple(int(i) for i in parents[order])
        return Wires(
            inputs, tuple(float(w) for w in weights[order]), tuple(self._notes(dead, inputs)), self._sides(out)
        )

    def _sides(self, out: int) -> tuple[frozenset[int], ...]:
        """The inputs of both sums of a product; nothing for an output that is one sum."""
        found = tuple(frozenset(side.parents(out)[0].tolist()) for side in self.connector.sides)
        return found if len(found) > 1 and all(found) else ()

    def _notes(self, dead: list[int], inputs: tuple[int, ...]) -> list[str]:
        notes = [f"left out, never on: {_names(dead)}"] if dead else []
        if dense := [p for p in inputs if self.firings[p] > DENSE * self.rows]:
            notes.append(f"on in over {DENSE:.0%} of rows: {_names(dense)}")
        return notes


def _names(features: list[int], most: int = 6) -> str:
    shown = ", ".join(f"IF_{f}" for f in features[:most])
    return shown + (f" and {len(features) - most} more" if len(features) > most else "")
