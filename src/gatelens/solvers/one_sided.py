"""Fitting one output as the model will read it: behind a ReLU, only being too high where it is silent counts as an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

#: weights [k] and bias
Fit = tuple[Tensor, float]


def one_sided_fits(
    f_in: Any, f_out: Any, support: Sequence[Tensor], starts: Sequence[Fit], iterations: int = 12
) -> Iterator[Fit]:
    """`one_sided_fit` of every output on its own inputs; only rows on which one of them is on are visited.

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
        yield one_sided_fit(torch.from_numpy(X), torch.from_numpy(y), *start, iterations=iterations, idle=idle)


def one_sided_fit(
    X: Float[Tensor, "rows k"],
    y: Float[Tensor, " rows"],
    weights: Float[Tensor, " k"],
    bias: float,
    ridge: float = 1e-6,
    iterations: int = 12,
    idle: int = 0,
) -> Fit:
    """Minimise sum of (z - y)^2 where y > 0 and max(z, 0)^2 where y = 0, with z = X w + b.

    Convex: Newton on the rows that count, with step halving. Starts at `weights`, `bias`.

    Args:
        idle: so many rows of zeros, in X and in y, that are not written out.

    Returns:
        weights and bias, in float32.
    """
    ones = torch.ones(len(X), 1, dtype=X.dtype)
    A = torch.cat([X, ones], 1)
    on = y > 0
    w = torch.cat([weights.to(X.dtype), torch.tensor([bias], dtype=X.dtype)])
    loss, z = _loss(A, y, on, w, idle)
    for _ in range(iterations):
        counts = on | (z > 0)
        rows, residual = A[counts], (z - y)[counts]
        gradient = (rows.T @ residual).double()
        hessian = (rows.T @ rows).double()
        if w[-1] > 0:
            hessian[-1, -1] += idle
            gradient[-1] += idle * w[-1]
        hessian.diagonal().add_(ridge * hessian.diagonal().mean().clamp_min(1e-12))
        direction = torch.linalg.solve(hessian, gradient).to(X.dtype)
        step, improved = 1.0, False
        while step > 1e-3:
            new_loss, new_z = _loss(A, y, on, w - step * direction, idle)
            if new_loss < loss:
                improved = loss - new_loss > 1e-6 * loss
                w, z, loss = w - step * direction, new_z, new_loss
                break
            step /= 2
        if not improved:
            break
    return w[:-1].float(), float(w[-1])


def _loss(A: Tensor, y: Tensor, on: Tensor, w: Tensor, idle: int) -> tuple[float, Tensor]:
    z = A @ w
    error = torch.where(on, z - y, z.clamp_min(0))
    return float(error.square().sum(dtype=torch.float64)) + idle * max(float(w[-1]), 0.0) ** 2, z


def column_of(matrix: Any, column: int) -> tuple[np.ndarray, np.ndarray]:
    span = slice(matrix.indptr[column], matrix.indptr[column + 1])
    return matrix.indices[span], matrix.data[span]
