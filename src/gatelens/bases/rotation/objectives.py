"""What a rotation is to maximise: F = mean phi(y) over Y = R A, each objective with the weights that its optimiser needs.

Every phi here has psi = phi'(y) = -w(y) y. The optimiser works from w alone: the gradient is a product of w y with y, and
w are the weights of the quadratic that touches -phi from above where phi is concave in y^2 (half-quadratic majorisation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError, unknown
from ...jacobians.sparsity import check_eps


@runtime_checkable
class Objective(Protocol):
    """Something to maximise; `name` is shown in traces."""

    @property
    def name(self) -> str: ...

    def __call__(self, y: Float[Tensor, "n m"]) -> tuple[Tensor, Float[Tensor, "n m"]]:
        """(sum of phi(y), w(y))."""
        ...


@dataclass(frozen=True)
class SmoothL1:
    """phi = -sqrt(y^2 + mu^2)."""

    mu: float = 0.02

    @property
    def name(self) -> str:
        return "L1"

    def __call__(self, y: Float[Tensor, "n m"]) -> tuple[Tensor, Float[Tensor, "n m"]]:
        q = (y * y).add_(self.mu**2)
        w = q.rsqrt()
        return -q.mul_(w).sum(), w


@dataclass(frozen=True)
class SeedMeasure:
    """phi = 1 / sqrt(y^2 + eps^2): 1 / (|y| + eps) without its kink, at which a line search would stop at once."""

    eps: float = 0.1

    @property
    def name(self) -> str:
        return f"seed measure, eps {self.eps:g}"

    def __call__(self, y: Float[Tensor, "n m"]) -> tuple[Tensor, Float[Tensor, "n m"]]:
        r = (y * y).add_(self.eps**2).rsqrt_()
        return r.sum(), r * r * r


@dataclass(frozen=True)
class LogSquare:
    """phi = -log(y^2 + c) / 2."""

    c: float = 0.01

    @property
    def name(self) -> str:
        return "log"

    def __call__(self, y: Float[Tensor, "n m"]) -> tuple[Tensor, Float[Tensor, "n m"]]:
        q = (y * y).add_(self.c)
        return -0.5 * q.log().sum(), q.reciprocal()


@dataclass(frozen=True)
class L4:
    """phi = y^4 / 4: few large peaks. Convex in y^2, so w is negative and its size serves as the curvature."""

    @property
    def name(self) -> str:
        return "L4"

    def __call__(self, y: Float[Tensor, "n m"]) -> tuple[Tensor, Float[Tensor, "n m"]]:
        q = y * y
        return 0.25 * torch.dot(q.flatten(), q.flatten()), -q


def stages(objective: str, eps: float, zeros: bool) -> list[Objective]:
    """The objectives to be maximised one after another.

    Args:
        objective: "l1", "seed" (the seed measure, its eps lowered in steps from 1), "l4" or "log".
        eps: the sharpness at which the seed measure ends, in units of the root mean square.
        zeros: polish on the seed measure behind another objective.
    """
    check_eps([eps])
    continuation: list[Objective] = [SeedMeasure(e) for e in (1.0, 0.3, eps) if e >= eps]
    polish: list[Objective] = (
        [SeedMeasure(max(0.3, eps)), SeedMeasure(eps)] if zeros and eps < 0.3 else [SeedMeasure(eps)]
    )
    plain: dict[str, list[Objective]] = {"l1": [SmoothL1()], "l4": [L4()], "log": [LogSquare()]}
    if objective == "seed":
        return continuation
    if objective not in plain:
        raise BasisError(unknown("objective", objective, [*plain, "seed"]))
    return plain[objective] + (polish if zeros else [])
