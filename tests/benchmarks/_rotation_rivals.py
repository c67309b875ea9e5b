"""What other searches for a rotation find: plain gradient descent, Adam in three parametrisations, and the L4 power iteration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gatelens.bases.rotation.checks import check_columns, reduce
from gatelens.bases.rotation.starts import polar, svd_rotation

#: method -> (map from parameters to rotations, optimiser, default learning rate)
FIRST_ORDER: dict[str, tuple[str, Callable[..., torch.optim.Optimizer], float]] = {
    "expm_sgd": ("exp(B - B^T)", torch.optim.SGD, 1e-4),
    "adam_expm": ("exp(B - B^T)", torch.optim.Adam, 1e-2),
    "adam_cayley": ("cayley", torch.optim.Adam, 1e-2),
    "adam_householder": ("householder", torch.optim.Adam, 1e-2),
}


def descend(
    columns: Tensor,
    method: str,
    start: Tensor,
    objective: str = "l1",
    eps: float = 0.1,
    iterations: int = 150,
    lr: float | None = None,
    watcher: Callable[[str, float, Tensor], None] | None = None,
) -> Tensor:
    """Run one of `FIRST_ORDER` from a rotation and return the best that it passed, [d, d].

    The objective is "l1" or "reciprocal", that measure with its kink. Gradient descent takes the sum over the entries; Adam does
    not mind the scale and takes the mean. The watcher sees whole rotations, as that of `fit_rotation` does.
    """
    kind, optimiser, default = FIRST_ORDER[method]
    reduced = reduce(check_columns(columns))
    best, best_value = reduced.restrict(start), -float("inf")
    parameters, current = _parametrise(kind, best)
    step = optimiser(parameters, lr=default if lr is None else lr)
    for _ in range(iterations):
        turned = current()
        y = turned @ reduced.columns
        value = (y.abs() + eps).reciprocal().mean() if objective == "reciprocal" else -y.abs().mean()
        loss = -value * y.numel() if method == "expm_sgd" else -value
        step.zero_grad(set_to_none=True)
        loss.backward()
        now = float(value.detach())
        if not now > -float("inf"):
            raise ValueError(f"{method} diverged at learning rate {step.param_groups[0]['lr']:g}")
        if now > best_value:
            best, best_value = turned.detach().clone(), now
        step.step()
        if watcher is not None:
            watcher(f"{method}, {objective}", now, reduced.embed(turned.detach()))
    return reduced.embed(polar(best))


def _parametrise(kind: str, rotation: Tensor) -> tuple[list[nn.Parameter], Callable[[], Tensor]]:
    """The parameters, and the function from them to a rotation; it begins at the one given."""
    n = len(rotation)
    if kind == "exp(B - B^T)":
        b = nn.Parameter(torch.zeros_like(rotation))
        return [b], lambda: torch.matrix_exp(b - b.T) @ rotation
    layer = nn.Linear(n, n, bias=False, dtype=rotation.dtype)
    layer = parametrizations.orthogonal(layer, orthogonal_map=kind, use_trivialization=kind == "cayley")
    layer.weight = rotation
    return list(layer.parameters()), lambda: torch.as_tensor(layer.weight)


def match_stretch_project(columns: Tensor, iterations: int = 80) -> Tensor:
    """MSP: matching, stretching and projection from the SVD, R <- polar((R A)^3 A^T), until the mean fourth power gains under 1e-6.

    Source: "Complete Dictionary Learning via l4-Norm Maximization over the Orthogonal Group". It finds a few large peaks, quickly and
    the same ones from any start, which makes it a good anchor and by itself not the sparsest answer.
    """
    rotation, value = svd_rotation(columns), 0.0
    for _ in range(iterations):
        y = rotation @ columns
        new_value = float((y * y).square().mean(dtype=torch.float64))
        if new_value - value <= 1e-6 * abs(new_value):
            break
        value, rotation = new_value, polar((y * y * y) @ columns.T).to(rotation.dtype)
    return rotation
