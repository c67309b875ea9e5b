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
    """

    inputs: tuple[int, ...]
    weights: tuple[float, ...]
    notes: tuple[str, ...]


class Parents:
    """Finds each output's wires.

    Attributes:
        firings, mean_on: [m] rows on which each input feature is on, and its mean value there.
    """

    def __init__(self, connector: Connector, f_in: Columns):
        self.rows, self.firings, self.mean_on = f_in.rows, f_in.firings(), f_in.mean_on()
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
        return Wires(inputs, tuple(float(w) for w in weights[order]), tuple(self._notes(dead, inputs)))

    def _notes(self, dead: list[int], inputs: tuple[int, ...]) -> list[str]:
        notes = [f"left out, never on: {_names(dead)}"] if dead else []
        if dense := [p for p in inputs if self.firings[p] > DENSE * self.rows]:
            notes.append(f"on in over {DENSE:.0%} of rows: {_names(dense)}")
        return notes


def _names(features: list[int], most: int = 6) -> str:
    shown = ", ".join(f"IF_{f}" for f in features[:most])
    return shown + (f" and {len(features) - most} more" if len(features) > most else "")
