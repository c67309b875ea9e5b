"""L-BFGS on the rotation group, preconditioned by the curvature of every pair of coordinates.

Turning coordinates i and j by an angle t changes F along one line; the second derivative of its quadratic bound is
h_ij = |P_ij + P_ji - P_ii - P_jj| with P = w(Y) (Y o Y)^T / M. These h are the diagonal with which L-BFGS starts each
direction. The step is R <- cayley(t D) R for a skew D. Half-quadratic weights: "Constrained Restoration
and the Recovery of Discontinuities"; relative Newton steps over pairs of sources: "Blind Source Separation with Relative Newton Method"
and "Faster ICA under Orthogonal Constraint" (Picard-O).
"""

from __future__ import annotations

from collections import deque

import torch
from jaxtyping import Float
from torch import Tensor

from .result import Watch
from .stages import Reciprocal, SmoothL1

Objective = SmoothL1 | Reciprocal
_MEMORY = 10
_CURVATURE_FLOOR = 0.1  # of the mean: pairs that hardly matter must not take huge turns
_REFRESH = 5  # iterations between two evaluations of the curvature, once the first few are done
_BLOCK = 2**18  # entries in one block of columns: small enough for a processor's cache


def ascend(
    columns: Float[Tensor, "n m"],
    rotation: Float[Tensor, "n n"],
    objective: Objective,
    iterations: int,
    watch: Watch,
    tolerance: float = 1e-5,
) -> Float[Tensor, "n n"]:
    """Raise mean phi(R A) from a rotation until its relative gain is under `tolerance` three times running."""
    blocks = column_blocks(columns)
    value, gradient, curvature = evaluate(blocks, rotation, objective, True)
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=_MEMORY)
    small = 0
    for iteration in range(iterations):
        if watch.spent or small >= 3:
            break
        direction = _direction(gradient, curvature, pairs)
        refresh = iteration < 3 or iteration % _REFRESH == 0
        step = _line_search(blocks, rotation, objective, value, gradient, direction, refresh)
        if step is None:
            if not pairs:
                break
            pairs.clear()  # what was remembered misleads: try the plain preconditioned gradient once
            continue
        moved, rotation, new_value, new_gradient, new_curvature = step
        _remember(pairs, moved, gradient - new_gradient)
        small = small + 1 if abs(new_value - value) <= tolerance * abs(value) else 0
        value, gradient = new_value, new_gradient
        curvature = curvature if new_curvature is None else new_curvature
        watch.step(objective.name, value, rotation)
    return rotation


def column_blocks(columns: Float[Tensor, "n m"]) -> list[Tensor]:
    """The columns in contiguous blocks that fit a processor's cache; on an accelerator, larger ones."""
    size = _BLOCK if columns.device.type == "cpu" else _BLOCK * 64
    return [b.contiguous() for b in columns.split(max(64, size // len(columns)), dim=1)]


def evaluate(
    blocks: list[Tensor], rotation: Float[Tensor, "n n"], objective: Objective, with_curvature: bool
) -> tuple[float, Float[Tensor, "n n"], Float[Tensor, "n n"] | None]:
    """(F, its skew gradient, the curvature of each pair or None) at a rotation.

    The gradient is g_ij = mean(psi_i y_j - psi_j y_i) with psi = -w y: how F rises when i turns towards j.
    """
    total = torch.zeros((), dtype=torch.float64, device=rotation.device)
    moment, spread = torch.zeros_like(rotation), torch.zeros_like(rotation)
    for block in blocks:
        y = rotation @ block
        value, w = objective(y)
        total += value
        if with_curvature:
            spread.addmm_(w, (y * y).T)
        moment.addmm_(w.mul_(y), y.T)
    count = sum(b.shape[1] for b in blocks)
    gradient = (moment.T - moment) / count
    value = float(total) / (count * len(rotation))
    if not with_curvature:
        return value, gradient, None
    own = spread.diagonal()
    curvature = (spread + spread.T - own[:, None] - own[None, :]).abs() / count
    return value, gradient, curvature.clamp_min(_CURVATURE_FLOOR * float(curvature.mean()) + 1e-30)


def cayley(skew: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """(I - D/2)^-1 (I + D/2): the rotation that agrees with exp(D) to second order, at a third of its cost."""
    eye = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(eye - skew / 2, eye + skew / 2)


def _direction(gradient: Tensor, curvature: Tensor | None, pairs: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The L-BFGS two-loop recursion on skew matrices ("Updating Quasi-Newton Matrices with Limited Storage")."""
    q, alphas = gradient.clone(), []
    for moved, change, rho in reversed(pairs):
        alpha = rho * float((moved * q).sum())
        q.sub_(change, alpha=alpha)
        alphas.append(alpha)
    q = q / curvature
    for (moved, change, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q.add_(moved, alpha=alpha - rho * float((change * q).sum()))
    if float((q * gradient).sum()) <= 0:
        pairs.clear()
        return gradient / curvature  # pyright: ignore[reportOperatorIssue]
    return q


def _line_search(
    blocks: list[Tensor],
    rotation: Tensor,
    objective: Objective,
    value: float,
    gradient: Tensor,
    direction: Tensor,
    refresh: bool,
):
    """Shorten the step by .3 until F rises; None when it does not."""
    n = len(rotation)
    length = float(direction.norm()) / 2**0.5  # over pairs i < j
    t = min(1.0, 0.5 * n**0.5 / max(length, 1e-30))
    slope = float((gradient * direction).sum()) / 2 / n
    for _ in range(12):
        moved = t * direction
        turned = cayley(moved) @ rotation
        new_value, new_gradient, curvature = evaluate(blocks, turned, objective, refresh)
        if new_value > value + 1e-4 * t * slope:
            return moved, turned, new_value, new_gradient, curvature
        t *= 0.3
    return None


def _remember(pairs: deque[tuple[Tensor, Tensor, float]], moved: Tensor, change: Tensor) -> None:
    product = float((moved * change).sum())
    if product > 1e-10 * float(moved.norm() * change.norm()):
        pairs.append((moved, change, 1.0 / product))
