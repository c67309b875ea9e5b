"""Fitting one output as the model will read it: behind a ReLU, only being too high where it is silent counts as an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: weights [k] and bias
Fit = tuple[Tensor, float]
#: added to the Hessian's diagonal, relative to it: parents that repeat each other share their weight
RIDGE = 1e-6
#: Newton steps at most; most fits take half as many
_ITERATIONS = 12


@dataclass(frozen=True)
class OneSided:
    """Minimiser of  sum_i v_i l_i,  l = (z - y)^2 where y > 0, max(z, 0)^2 where y = 0,  z = X w + b,  b <= 0.

    Attributes:
        weights: [k]; bias: at most 0.
        value: [rows] max(z, 0), what the output is read as.
        loss: sum of v (value - y)^2.
    """

    weights: Float[np.ndarray, " k"]
    bias: float
    value: Float[np.ndarray, " rows"]
    loss: float

    @classmethod
    def of(
        cls,
        weights: Float[np.ndarray, " k"],
        bias: float,
        X: Float[np.ndarray, "rows k"],
        y: Float[np.ndarray, " rows"],
        v: Float[np.ndarray, " rows"],
    ) -> OneSided:
        value = np.maximum(X @ weights + bias, 0.0)
        return cls(weights, bias, value, float(v @ (value - y) ** 2))


def fit_one_sided(
    X: Float[np.ndarray, "rows k"],
    y: Float[np.ndarray, " rows"],
    v: Float[np.ndarray, " rows"],
    start: Float[np.ndarray, " k"],
    bias: float = 0.0,
) -> OneSided:
    """The fit with row weights and a bias that may not rise above zero.

    A row on which no parent is on cannot be reached: since b <= 0 the output is read as 0 there, whatever the weights.
    Such rows are left out of the fit (an output that fires there for other reasons would pull b up to 0, and hide an
    AND); they stay in the loss that is reported. Without the bound, rows on which nothing is on would have to hold b down by
    a kink, and the steps stall there.
    """
    reached = (X > 0).any(axis=1)
    w, b = newton(X[reached], y[reached], start, min(bias, 0.0), v=v[reached], bounded=True)
    return OneSided.of(w, b, X, y, v)


def one_sided_fits(f_in: Any, f_out: Any, support: Sequence[Tensor], starts: Sequence[Fit]) -> Iterator[Fit]:
    """The fit of every output on its own inputs, its bias free; only rows on which one of them is on are visited.

    Args:
        f_in, f_out: scipy CSC matrices over the same rows, [rows, m] and [rows, n], without stored zeros.
        support, starts: each output's inputs, [k] of them, and the weights and bias that its fit starts from.
    """
    place = np.empty(f_in.shape[0], dtype=np.int64)
    for out, (parents, start) in enumerate(zip(support, starts, strict=True)):
        columns = [column_of(f_in, parent) for parent in parents.tolist()]
        on, value = column_of(f_out, out)
        touched = np.zeros(len(place), dtype=bool)
        for rows, _ in [*columns, (on, value)]:
            touched[rows] = True
        touched = np.flatnonzero(touched)
        place[touched] = np.arange(len(touched))
        X, y = np.zeros((len(touched), len(columns)), dtype=np.float32), np.zeros(len(touched), dtype=np.float32)
        y[place[on]] = value
        for i, (rows, values) in enumerate(columns):
            X[place[rows], i] = values
        idle = len(place) - len(touched)
        w, b = newton(X, y, start[0].numpy(), start[1], idle=idle)
        yield torch.from_numpy(w.astype(np.float32)), b


def newton(
    X: Float[np.ndarray, "rows k"],
    y: Float[np.ndarray, " rows"],
    w: Float[np.ndarray, " k"],
    b: float,
    *,
    v: Float[np.ndarray, " rows"] | None = None,
    idle: int = 0,
    bounded: bool = False,
) -> tuple[Float[np.ndarray, " k"], float]:
    """Minimise  sum of v (z - y)^2 where y > 0, and v max(z, 0)^2 where y = 0,  z = X w + b: convex, piecewise quadratic.

    Each step goes towards the minimum of the quadratic that holds where it stands, as far as the loss falls.

    Args:
        w, b: where it starts.
        v: the rows' weights; None for 1.
        idle: so many rows of zeros, in X and in y, that are not written out.
        bounded: keep b at or below 0.
    """
    on, w = y > 0, w.astype(np.float64)
    z = X @ w + b
    loss = _loss(z, b, y, on, v, idle)
    for _ in range(_ITERATIONS):
        counts = on | (z > 0)
        goal_w, goal_b = _quadratic_minimum(
            X[counts], y[counts], None if v is None else v[counts], idle if b > 0 else 0, bounded
        )
        goal_z = X @ goal_w + goal_b
        step = 1.0
        while True:
            new_z, new_b = z + step * (goal_z - z), b + step * (goal_b - b)
            new_loss = _loss(new_z, new_b, y, on, v, idle)
            if new_loss <= loss or step < 1e-3:
                break
            step /= 2
        if new_loss > loss:
            break
        gained = loss - new_loss
        w, b, z, loss = w + step * (goal_w - w), new_b, new_z, new_loss
        if gained <= 1e-7 * loss:
            break
    return w, float(b)


def _quadratic_minimum(
    X: Float[np.ndarray, "rows k"],
    y: Float[np.ndarray, " rows"],
    v: Float[np.ndarray, " rows"] | None,
    idle: int,
    bounded: bool,
) -> tuple[Float[np.ndarray, " k"], float]:
    """Weighted least squares of y on X and a constant: with `bounded` freely where that gives b <= 0, else with b = 0."""
    k = X.shape[1]
    A = np.empty((len(X), k + 1), X.dtype)
    A[:, :k], A[:, k] = X, 1.0
    weighted = A.T if v is None else A.T * v
    H, g = (weighted @ A).astype(np.float64), (weighted @ y).astype(np.float64)
    H[k, k] += idle
    H.flat[:: k + 2] += RIDGE * np.maximum(H.diagonal(), 1e-12)
    solution = np.linalg.solve(H, g)
    if not bounded or solution[k] <= 0:
        return solution[:k], float(solution[k])
    return np.linalg.solve(H[:k, :k], g[:k]), 0.0


def _loss(
    z: Float[np.ndarray, " rows"],
    b: float,
    y: Float[np.ndarray, " rows"],
    on: Bool[np.ndarray, " rows"],
    v: Float[np.ndarray, " rows"] | None,
    idle: int,
) -> float:
    error = np.where(on, z - y, np.maximum(z, 0.0))
    weighted = error if v is None else v * error
    return float(weighted @ error) + idle * max(b, 0.0) ** 2


def column_of(matrix: Any, column: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and values of a scipy CSC matrix's column."""
    span = slice(matrix.indptr[column], matrix.indptr[column + 1])
    return matrix.indices[span], matrix.data[span]
