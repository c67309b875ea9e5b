"""What a rotation is to maximise, F = mean phi(y) over Y = R A, and the stages of a fit: one objective after another, smooth ones first.

Every phi here has psi = phi'(y) = -w(y) y. The optimiser works from w alone: the gradient is a product of w y with y, and
w are the weights of the quadratic that touches -phi from above, phi being concave in y^2 (half-quadratic majorisation).

Smooth L1 with a large mu has few local optima (it is close to a sum of fourth powers) and leads to a basis that hangs little on
the sample; lowering mu then sharpens it (graduated non-convexity: "Visual Reconstruction", Blake & Zisserman).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError, unknown
from ...jacobians.sparsity import check_eps
from ...lazy import understood

OBJECTIVES = ("l1", "reciprocal")
_LOOSE = 1e-4
_FEWEST, _LEADING_ENTRIES = 4, 2**22  # the first stage sees so many entries; no fewer than four columns a dimension


def objective_named(name: str) -> str:
    """The objective that is meant; "seed" is the name of "reciprocal" in the version before."""
    return understood(name, {"seed": "reciprocal"}, "the objective")


@dataclass(frozen=True)
class SmoothL1:
    """phi = -sqrt(y^2 + mu^2): L1 rounded within mu; for mu far above y, close to a sum of fourth powers."""

    mu: float = 0.02

    @property
    def name(self) -> str:
        return f"L1, mu {self.mu:g}"

    def __call__(self, y: Float[Tensor, "n m"]) -> tuple[Tensor, Float[Tensor, "n m"]]:
        """(sum of phi(y), w(y))."""
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
        """(sum of phi(y), w(y))."""
        r = (y * y).add_(self.eps**2).rsqrt_()
        return r.sum(), r * r * r


@dataclass(frozen=True)
class Stage:
    """One ascent.

    Attributes:
        objective: what it raises.
        tolerance: the relative gain under which it ends.
        columns: how many columns a dimension it sees, at random; None for all.
    """

    objective: SmoothL1 | Reciprocal
    tolerance: float = 1e-5
    columns: int | None = None

    def sample(self, columns: Float[Tensor, "n m"], seed: int = 0) -> Float[Tensor, "n k"]:
        """The columns that this stage sees."""
        n, m = columns.shape
        if self.columns is None or m <= self.columns * n:
            return columns
        order = torch.randperm(m, generator=torch.Generator().manual_seed(seed), device="cpu")
        return columns[:, order[: self.columns * n].to(columns.device)]


def stages(objective: str, eps: float, zeros: bool, dimensions: int, lead: bool = True) -> list[Stage]:
    """The plan of a fit.

    Args:
        objective: "l1", or "reciprocal" (mean 1 / (|y| + eps), its eps lowered in steps from 1).
        eps: the sharpness at which the reciprocal measure ends, in units of the root mean square.
        zeros: polish on the reciprocal measure behind the other objective.
        dimensions: of the rotation; in many of them the first stage runs on a sample.
        lead: begin with smooth L1 at mu 1 and .3; without it a start stays near where it is.
    """
    check_eps([eps])
    if objective not in OBJECTIVES:
        raise BasisError(unknown("objective", objective, OBJECTIVES))
    if objective == "reciprocal":
        return _lowering(eps)
    leading = [Stage(SmoothL1(1.0), columns=max(_FEWEST, _LEADING_ENTRIES // dimensions**2)), Stage(SmoothL1(0.3))]
    polish = [Stage(Reciprocal(e)) for e in ((0.3, eps) if eps < 0.3 else (eps,))]
    return (leading if lead else []) + [Stage(SmoothL1())] + (polish if zeros else [])


def _lowering(eps: float) -> list[Stage]:
    """The reciprocal measure at eps 1, .3 and the one wanted; loosely on a sample first, which leads to the last two cheaply."""
    sharpness = [e for e in (1.0, 0.3) if e > eps] + [eps]
    early = [Stage(Reciprocal(e), _LOOSE, 16) for e in sharpness[:-1]]
    return early + [Stage(Reciprocal(e)) for e in sharpness[-2:]]
