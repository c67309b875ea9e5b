"""The stages of a fit: objectives maximised one after another, the smooth ones first.

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
from .objectives import L4, LogSquare, Objective, Reciprocal, SmoothL1

_LOOSE = 1e-4
_FEWEST, _LEADING_ENTRIES = 4, 2**22  # the first stage sees so many entries; no fewer than four columns a dimension


@dataclass(frozen=True)
class Stage:
    """One ascent.

    Attributes:
        objective: what it raises.
        tolerance: the relative gain under which it ends.
        columns: how many columns a dimension it sees, at random; None for all.
    """

    objective: Objective
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
        objective: "l1", "reciprocal" (mean 1 / (|y| + eps), its eps lowered in steps from 1), "l4" or "log".
        eps: the sharpness at which the reciprocal measure ends, in units of the root mean square.
        zeros: polish on the reciprocal measure behind another objective.
        dimensions: of the rotation; in many of them the first stage runs on a sample.
        lead: begin with smooth L1 at mu 1 and .3; without it a start stays near where it is.
    """
    check_eps([eps])
    if objective == "reciprocal":
        return _lowering(eps)
    leading = [Stage(SmoothL1(1.0), columns=max(_FEWEST, _LEADING_ENTRIES // dimensions**2)), Stage(SmoothL1(0.3))]
    plain: dict[str, list[Stage]] = {"l1": [Stage(SmoothL1())], "l4": [Stage(L4())], "log": [Stage(LogSquare())]}
    if objective not in plain:
        raise BasisError(unknown("objective", objective, [*plain, "reciprocal"]))
    polish = [Stage(Reciprocal(e)) for e in ((0.3, eps) if eps < 0.3 else (eps,))]
    return (leading if lead and objective != "l4" else []) + plain[objective] + (polish if zeros else [])


def _lowering(eps: float) -> list[Stage]:
    """The reciprocal measure at eps 1, .3 and the one wanted; loosely on a sample first, which leads to the last two cheaply."""
    sharpness = [e for e in (1.0, 0.3) if e > eps] + [eps]
    early = [Stage(Reciprocal(e), _LOOSE, 16) for e in sharpness[:-1]]
    return early + [Stage(Reciprocal(e)) for e in sharpness[-2:]]
