"""The one-sided fit of a few parents, with row weights and a bias that may not rise above zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

#: added to the Hessian's diagonal, relative to it: parents that repeat each other share their weight
RIDGE = 1e-6


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
    iterations: int = 12,
) -> OneSided:
    """Newton on the rows that count, with step halving; the problem is convex and piecewise quadratic.

    A row on which no parent is on cannot be reached: since b <= 0 the output is read as 0 there, whatever the weights.
    Such rows are left out of the fit (an output that fires there for other reasons would pull b up to 0, and hide an
    AND); they stay in the loss that is reported.

    Each step solves the current quadratic exactly under b <= 0: freely when that gives b <= 0, else with b = 0. Without
    the bound, rows on which nothing is on would have to hold b down by a kink, and the steps stall there.
    """
    reached = (X > 0).any(axis=1)
    w, b = _newton(X[reached], y[reached], v[reached], start, bias, iterations)
    return OneSided.of(w, b, X, y, v)


def _newton(
    X: Float[np.ndarray, "rows k"],
    y: Float[np.ndarray, " rows"],
    v: Float[np.ndarray, " rows"],
    start: Float[np.ndarray, " k"],
    bias: float,
    iterations: int,
) -> tuple[Float[np.ndarray, " k"], float]:
    on = y > 0
    w, b = start.astype(np.float64), min(bias, 0.0)
    z = X @ w + b
    loss = _loss(z, y, v, on)
    for _ in range(iterations):
        counts = on | (z > 0)
        goal_w, goal_b = _quadratic_minimum(X[counts], y[counts], v[counts])
        goal_z = X @ goal_w + goal_b
        step = 1.0
        while True:
            new_z = z + step * (goal_z - z)
            new_loss = _loss(new_z, y, v, on)
            if new_loss <= loss or step < 1e-3:
                break
            step /= 2
        if new_loss > loss:
            break
        gained = loss - new_loss
        w, b, z, loss = w + step * (goal_w - w), b + step * (goal_b - b), new_z, new_loss
        if gained <= 1e-7 * loss:
            break
    return w, float(b)


def _quadratic_minimum(
    X: Float[np.ndarray, "rows k"], y: Float[np.ndarray, " rows"], v: Float[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, " k"], float]:
    """Weighted least squares of y on X and a constant, the constant at most 0."""
    k = X.shape[1]
    A = np.empty((len(X), k + 1))
    A[:, :k], A[:, k] = X, 1.0
    weighted = A.T * v
    H, g = weighted @ A, weighted @ y
    H.flat[:: k + 2] += RIDGE * np.maximum(H.diagonal(), 1e-12)
    solution = np.linalg.solve(H, g)
    if solution[k] <= 0:
        return solution[:k], float(solution[k])
    return np.linalg.solve(H[:k, :k], g[:k]), 0.0


def _loss(
    z: Float[np.ndarray, " rows"],
    y: Float[np.ndarray, " rows"],
    v: Float[np.ndarray, " rows"],
    on: Bool[np.ndarray, " rows"],
) -> float:
    error = np.where(on, z - y, np.maximum(z, 0.0))
    return float(v @ (error * error))
