"""The connector's own value for one output at a time, on sparse rows: how much of the true one it explains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..connectors import Connector
from .tables import Columns


class Predictor:
    """Sums of an output's wires over one set of rows; keeps one scratch entry a row."""

    def __init__(self, connector: Connector, f_in: Columns, f_out: Columns):
        self.connector, self.f_in, self.f_out = connector, f_in, f_out
        self.sum = np.zeros(f_in.rows)
        self.touched = np.zeros(f_in.rows, bool)

    def r2(self, out: int, parents: Sequence[int], weights: Sequence[float]) -> float | None:
        """1 - SSE / SST of the connector's value over all rows; None for an output that does not vary.

        Args:
            parents, weights: its wires from inputs that are ever on.
        """
        row, value = self.f_out.entries(out)
        value = value.astype(np.float64)
        rows = self._touched(parents)
        squares = np.square(value).sum()
        spread = squares - value.sum() ** 2 / self.f_in.rows
        said, at_value, quiet = np.ones(len(rows)), np.ones(len(row)), np.ones(1)
        for place, side in enumerate(self.connector.sides):
            bias = float(side.bias[out])
            inputs, heavy = (parents, weights) if side is self.connector else (p.tolist() for p in side.parents(out))
            sums = (*self._sums(bias, inputs, heavy, rows, row), np.array([bias]))
            a, b, c = (self._activated(out, z) if place == 0 else z for z in sums)
            said, at_value, quiet = said * a, at_value * b, quiet * c
        said, at_value, quiet = (self._passed(out, v) for v in (said, at_value, quiet))
        predicted = np.square(said).sum() + (self.f_in.rows - len(rows)) * float(quiet[0] ** 2)
        error = predicted - 2 * (at_value * value).sum() + squares
        return float(1 - error / spread) if spread > 1e-12 else None

    def _touched(self, parents: Sequence[int]) -> np.ndarray:
        """The rows on which any of the inputs is not zero."""
        found = []
        for parent in parents:
            where, _ = self.f_in.entries(parent)
            found.append(where[~self.touched[where]])
            self.touched[where] = True
        rows = np.concatenate(found) if found else np.zeros(0, np.int64)
        self.touched[rows] = False
        return rows

    def _sums(
        self, bias: float, parents: Sequence[int], weights: Sequence[float], rows: np.ndarray, row: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sum, bias included, on the rows where an input is not zero, and on those where the output is not."""
        for parent, weight in zip(parents, weights, strict=True):
            where, value = self.f_in.entries(parent)
            self.sum[where] += weight * value
        z, at_value = self.sum[rows] + bias, self.sum[row] + bias
        self.sum[rows] = 0.0
        return z, at_value

    def _passed(self, out: int, value: np.ndarray) -> np.ndarray:
        least = self.connector.least
        return value if least is None else value * (np.abs(value) > float(least[out]))

    def _activated(self, out: int, z: np.ndarray) -> np.ndarray:
        threshold = self.connector.threshold
        at = None if threshold is None else threshold[out : out + 1].double()
        return Connector.activate(torch.from_numpy(z)[:, None], at, self.connector.activation)[:, 0].numpy()
