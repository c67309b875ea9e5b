"""The weighted sum of a rule's features: whether their amounts say more than which of them are on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from .scores import among, average_precision, matthews
from .search import Target
from .tables import Columns


@dataclass(frozen=True)
class Sums:
    """A sum over the features of a rule, on the rows where any of them is not zero; on all others it is zero.

    Attributes:
        z: [touched]; is_on: whether the output is there; on, rows: of all rows whose state is clear.
    """

    z: Float[np.ndarray, " touched"]
    is_on: Bool[np.ndarray, " touched"]
    on: int
    rows: int

    def average_precision(self) -> float | None:
        """Of ranking all rows by the sum."""
        return average_precision(self.z, self.is_on, 0.0, self.on, self.rows)

    def best_cut(self) -> float:
        """The cut above zero that predicts the output best; inf where the sum is nowhere above zero."""
        above = np.flatnonzero(self.z > 0)
        order = above[np.argsort(-self.z[above], kind="stable")]
        if not len(order):
            return np.inf
        z, hit, said = self.z[order], np.cumsum(self.is_on[order]), np.arange(1, len(order) + 1)
        last = np.append(z[1:] < z[:-1], True)  # equal sums fall on one side together
        return float(z[np.argmax(np.where(last, matthews(hit, said, self.on, self.rows), -1.0))])

    def cut_mcc(self, cut: float) -> float:
        """Matthews correlation of "the sum is `cut` or more" with the output."""
        said = self.z >= cut
        return float(matthews(self.is_on[said].sum(), said.sum(), self.on, self.rows))


@dataclass(frozen=True)
class GradedSum:
    """Weights of a rule's features, by least squares on whether the output is on."""

    features: tuple[int, ...]
    weights: Float[np.ndarray, " k"]

    @classmethod
    def fitted(cls, f: Columns, features: Sequence[int], target: Target) -> tuple[GradedSum, Sums]:
        """The regression of on (1) and off (0) on the features and a constant, over the rows whose state is clear; and the sum there."""
        x, is_on = _values(f, features, target)
        rows, on = f.rows - len(target.unclear), len(target.on)
        mean = x.sum(0) / rows
        gram = x.T @ x / rows - np.outer(mean, mean)
        with_on = x[is_on].sum(0) / rows - mean * on / rows
        gram[np.diag_indices_from(gram)] += 1e-9 * max(gram.trace(), 1e-12)
        weights = np.linalg.solve(gram, with_on)
        return cls(tuple(features), weights), Sums(x @ weights, is_on, on, rows)

    def on(self, f: Columns, target: Target) -> Sums:
        """The sum over some rows, beside an output."""
        x, is_on = _values(f, self.features, target)
        return Sums(x @ self.weights, is_on, len(target.on), f.rows - len(target.unclear))


def _values(
    f: Columns, features: Sequence[int], target: Target
) -> tuple[Float[np.ndarray, "touched k"], Bool[np.ndarray, " touched"]]:
    """The features' values where any is not zero, of the rows whose state is clear, and whether the output is on there."""
    entries = [f.entries(feature) for feature in features]
    mark = np.zeros(f.rows, bool)
    for row, _ in entries:
        mark[row] = True
    mark[target.unclear] = False
    touched = np.flatnonzero(mark)
    place_of = np.full(f.rows, len(touched), np.int32)  # rows that do not count share one place past the end
    place_of[touched] = np.arange(len(touched), dtype=np.int32)
    x = np.zeros((len(touched) + 1, len(features)))
    for column, (row, value) in enumerate(entries):
        x[place_of[row], column] = value
    return x[:-1], among(touched, target.on, f.rows)
