"""An invertible change of coordinates that need not be orthogonal, for Jacobians whose sparse directions are oblique.

Minimise mean |y| / rms(y) - (barrier / n) log |det M| over matrices M with rows of length 1, Y = M A. Without the barrier all rows
would run into the one sparsest direction. |det M| <= 1 with equality for rotations (Hadamard's inequality).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .result import Watch

#: of Adam; the width of the smooth L1 about zero; the weight of log |det M|: the smaller, the further from orthogonal
_LR, _MU, _BARRIER = 3e-3, 0.02, 0.03


def fit_oblique(
    columns: Float[Tensor, "n m"],
    start: Float[Tensor, "n n"],
    iterations: int,
    watch: Watch,
) -> Float[Tensor, "n n"]:
    """M with unit rows, by Adam from `start` (an orthogonal matrix is the best known one)."""
    free = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([free], lr=_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(iterations, 1))
    best, best_value = start, -float("inf")
    with torch.enable_grad():
        for _ in range(iterations):
            if watch.spent:
                break
            matrix = free / free.norm(dim=1, keepdim=True)
            y = matrix @ columns
            size = (y.square() + _MU**2).sqrt().mean() / y.square().mean().sqrt()
            loss = size - _BARRIER / len(free) * torch.linalg.slogdet(matrix).logabsdet
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            value = -float(loss.detach())
            if value > best_value:
                best, best_value = matrix.detach().clone(), value
            optimiser.step()
            schedule.step()
            watch.step("oblique L1", value, matrix.detach())
    return best
