"""First-order methods over rotations, to compare with: plain gradient descent, and Adam in three parametrisations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ...errors import BasisError
from .watch import Watch

#: method -> (map from parameters to rotations, optimiser, default learning rate)
FIRST_ORDER: dict[str, tuple[str, Callable[..., torch.optim.Optimizer], float]] = {
    "expm_sgd": ("exp(B - B^T)", torch.optim.SGD, 1e-4),
    "adam_expm": ("exp(B - B^T)", torch.optim.Adam, 1e-2),
    "adam_cayley": ("cayley", torch.optim.Adam, 1e-2),
    "adam_householder": ("householder", torch.optim.Adam, 1e-2),
}


def descend(
    method: str,
    columns: Float[Tensor, "n m"],
    rotation: Float[Tensor, "n n"],
    objective: str,
    eps: float,
    iterations: int,
    watch: Watch,
    lr: float | None = None,
) -> Float[Tensor, "n n"]:
    """Run one of `FIRST_ORDER` and return the best rotation that it passed.

    The objective is "l1" or "reciprocal", that measure with its kink. Gradient descent takes the sum over the entries; Adam does
    not mind the scale and takes the mean.
    """
    kind, optimiser, default = FIRST_ORDER[method]
    if objective not in ("l1", "reciprocal"):
        raise BasisError(f'method {method} maximises "l1" or "reciprocal", got objective {objective!r}')
    parameters, current = _parametrise(kind, rotation)
    step = optimiser(parameters, lr=default if lr is None else lr)
    best, best_value = rotation, -float("inf")
    with torch.enable_grad():
        for _ in range(iterations):
            if watch.spent:
                break
            turned = current()
            y = turned @ columns
            value = (y.abs() + eps).reciprocal().mean() if objective == "reciprocal" else -y.abs().mean()
            loss = -value * y.numel() if method == "expm_sgd" else -value
            step.zero_grad(set_to_none=True)
            loss.backward()
            now = float(value.detach())
            if not now > -float("inf"):
                raise BasisError(
                    f"{method} diverged at learning rate {step.param_groups[0]['lr']:g}: give a smaller `lr`"
                )
            if now > best_value:
                best, best_value = turned.detach().clone(), now
            step.step()
            watch.step(f"{method}, {objective}", now, turned.detach())
    return best


def _parametrise(kind: str, rotation: Tensor) -> tuple[list[nn.Parameter], Callable[[], Tensor]]:
    """The parameters, and the function from them to a rotation; it begins at the one given."""
    n = len(rotation)
    if kind == "exp(B - B^T)":
        b = nn.Parameter(torch.zeros_like(rotation))
        return [b], lambda: torch.matrix_exp(b - b.T) @ rotation
    with torch.enable_grad():
        layer = nn.Linear(n, n, bias=False, dtype=rotation.dtype, device=rotation.device)
        layer = parametrizations.orthogonal(layer, orthogonal_map=kind, use_trivialization=kind == "cayley")
        layer.weight = rotation
    return list(layer.parameters()), lambda: torch.as_tensor(layer.weight)
