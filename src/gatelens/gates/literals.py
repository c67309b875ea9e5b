"""Literals over many rows: every feature above each of its levels, as sparse columns and rows of ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from .levels import thresholds
from .rule import Literal
from .tables import Columns


def rows_of(f: Columns, literal: Literal) -> Int[np.ndarray, " on"]:
    """The rows on which one literal is on, ascending."""
    row, value = f.entries(literal.feature)
    return row[value > literal.level]


class Literals:
    """A thermometer code of features: literal j * T + t is on where feature j exceeds its level t.

    Nothing of size [rows, literals] is made: the code has as many ones as the features have values above levels, and is held a
    column at a time (the rows of a literal) and a row at a time (the literals of a row).

    Attributes:
        level: [features, T] ascending; inf where a feature has no such level.
        count: [literals] rows on which each is on.
    """

    def __init__(self, f: Columns, quantiles: Sequence[float]):
        self.level = thresholds(f, quantiles)
        self.rows, self.features, self.levels = f.rows, f.features, len(quantiles)
        columns = _thermometer(f, self.level)
        self.count = np.diff(columns.indptr)
        self._starts, self._row = columns.indptr, columns.indices
        self._by_row = (
            columns.tocsr()
        )  # ones as float32: sums are exact up to 2^24 rows, and no copy is made to add them

    def __len__(self) -> int:
        return self.features * self.levels

    def literal(self, number: int) -> Literal:
        """What literal `number` is."""
        feature, level = divmod(int(number), self.levels)
        return Literal(feature, float(self.level[feature, level]))

    def on(self, number: int) -> Int[np.ndarray, " on"]:
        """The rows on which a literal is on, ascending."""
        return self._row[self._starts[number] : self._starts[number + 1]]

    def sums(
        self, rows: Int[np.ndarray, " some"], groups: Float[np.ndarray, "some k"]
    ) -> Float[np.ndarray, "literals k"]:
        """On how many of some rows each literal is on, for several groups of them at once (ones where a row is in a group)."""
        return self._by_row[rows].T @ groups


def _thermometer(f: Columns, level: Float[np.ndarray, "features levels"]) -> scipy.sparse.csc_matrix:
    feature = np.repeat(np.arange(f.features), np.diff(f.starts))
    kept = [f.value > level[feature, t] for t in range(level.shape[1])]
    per = [np.bincount(feature[k], minlength=f.features) for k in kept]
    counts = np.stack(per, 1).reshape(-1)
    starts = np.concatenate([[0], np.cumsum(counts)])
    row = np.empty(starts[-1], np.int32)
    for t, keep in enumerate(kept):  # within a feature its levels follow one another
        first = np.repeat(starts[:-1].reshape(f.features, -1)[:, t], per[t])
        within = np.arange(len(first)) - np.repeat(np.cumsum(per[t]) - per[t], per[t])
        row[first + within] = f.row[keep]
    return scipy.sparse.csc_matrix(
        (np.ones(len(row), np.float32), row, starts), shape=(f.rows, f.features * level.shape[1])
    )
