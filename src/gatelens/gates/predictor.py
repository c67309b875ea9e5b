"""The connector's own value for one output at a time, on sparse rows: how much of the true one it explains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..connectors import Connector
from .tables import Columns


class Predictor:
    """Sums of an output's wires over one set of rows; keeps one scratch entry a row."""

    def __init__(self, connector: Connector, f_in: Columns, f_out: Columns):
        self.connector, self.f_in, self.f_out = connector, f_in, f_out
        self.sum = np.zeros(f_in.rows)
        self.touched = np.zeros(f_in.rows, bool)

    def r2(self, out: int, parents: Sequence[int], weights: Sequence[float]) -> float | None:
        """1 - SSE / SST of the connector's value over all rows; None for an output that does not vary."""
        row, value = self.f_out.entries(out)
        value = value.astype(np.float64)
        z, at_value = self._sums(out, parents, weights, row)
        squares = np.square(value).sum()
        spread = squares - value.sum() ** 2 / self.f_in.rows
        quiet = float(np.square(self._activated(out, np.array([float(self.connector.bias[out])])))[0])
        predicted = np.square(self._activated(out, z)).sum() + (self.f_in.rows - len(z)) * quiet
        error = predicted - 2 * (self._activated(out, at_value) * value).sum() + squares
        return float(1 - error / spread) if spread > 1e-12 else None

    def _sums(
        self, out: int, parents: Sequence[int], weights: Sequence[float], row: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sum, bias included, on the rows where an input is not zero, and on those where the output is not."""
        bias, touched = float(self.connector.bias[out]), []
        for parent, weight in zip(parents, weights, strict=True):
            where, value = self.f_in.entries(parent)
            self.sum[where] += weight * value
            touched.append(where[~self.touched[where]])
            self.touched[where] = True
        rows = np.concatenate(touched) if touched else np.zeros(0, np.int64)
        z, at_value = self.sum[rows] + bias, self.sum[row] + bias
        self.sum[rows], self.touched[rows] = 0.0, False
        return z, at_value

    def _activated(self, out: int, z: np.ndarray) -> np.ndarray:
        if self.connector.threshold is not None:
            return z * (z > float(self.connector.threshold[out]))
        return np.maximum(z, 0) if self.connector.activation == "relu" else z
