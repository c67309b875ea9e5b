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

from ...lazy import understood


def objective_named(name: str) -> str:
    """The objective that is meant; "seed" is the name of "reciprocal" in the version before."""
    return understood(name, {"seed": "reciprocal"}, "the objective")


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
    """phi = -sqrt(y^2 + mu^2): L1 rounded within mu; for mu far above y, close to a sum of fourth powers."""

    mu: float = 0.02

    @property
    def name(self) -> str:
        return f"L1, mu {self.mu:g}"

    def __call__(self, y: Float[Tensor, "n m"]) -> tuple[Tensor, Float[Tensor, "n m"]]:
        q = (y * y).add_(self.mu**2)
        w = q.rsqrt()
        return -q.mul_(w).sum(), w


@dataclass(frozen=True)
class Reciprocal:
    """phi = 1 / sqrt(y^2 + eps^2): 1 / (|y| + eps) without its kink, at which a line search would stop at once."""

    eps: float = 0.1

    @property
    def name(self) -> str:
        return f"reciprocal measure, eps {self.eps:g}"

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
