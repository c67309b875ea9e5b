"""Fitting one output as the model will read it: behind a ReLU, only being too high where it is silent counts as an error."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def one_sided_fit(
    X: Float[Tensor, "rows k"],
    y: Float[Tensor, " rows"],
    weights: Float[Tensor, " k"],
    bias: float,
    ridge: float = 1e-6,
    iterations: int = 12,
) -> tuple[Float[Tensor, " k"], float]:
    """Minimise sum of (z - y)^2 where y > 0 and max(z, 0)^2 where y = 0, with z = X w + b.

    Convex: Newton on the rows that count, with step halving. Starts at `weights`, `bias`.

    Returns:
        weights and bias, in float32.
    """
    ones = torch.ones(len(X), 1, dtype=X.dtype)
    A = torch.cat([X, ones], 1)
    on = y > 0
    w = torch.cat([weights.to(X.dtype), torch.tensor([bias], dtype=X.dtype)])
    loss, z = _loss(A, y, on, w)
    for _ in range(iterations):
        counts = on | (z > 0)
        rows, residual = A[counts], (z - y)[counts]
        gradient = (rows.T @ residual).double()
        hessian = (rows.T @ rows).double()
        hessian.diagonal().add_(ridge * hessian.diagonal().mean().clamp_min(1e-12))
        direction = torch.linalg.solve(hessian, gradient).to(X.dtype)
        step, improved = 1.0, False
        while step > 1e-3:
            new_loss, new_z = _loss(A, y, on, w - step * direction)
            if new_loss < loss:
                improved = loss - new_loss > 1e-6 * loss
                w, z, loss = w - step * direction, new_z, new_loss
                break
            step /= 2
        if not improved:
            break
    return w[:-1].float(), float(w[-1])


def _loss(A: Tensor, y: Tensor, on: Tensor, w: Tensor) -> tuple[float, Tensor]:
    z = A @ w
    error = torch.where(on, z - y, z.clamp_min(0))
    return float(error.square().sum(dtype=torch.float64)), z
