"""How sparse a matrix is: several measures at once, since they do not agree, all of them at a root mean square of 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import BasisError, NonFiniteError
from ..lazy import understood

EPS = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Sparsity:
    """Measures of one set of Jacobian entries y, scaled to a root mean square of 1.

    Attributes:
        l1: mean |y|; lower is sparser, .80 for a dense Gaussian.
        hoyer: (sqrt N - L1/L2) / (sqrt N - 1), 1 for a single entry; higher is sparser ("Non-negative Matrix
            Factorization with Sparseness Constraints").
        l4: mean y^4; 3 for a Gaussian; higher means larger peaks.
        f90, f99: the share of entries that hold 90 and 99 % of the squared mass; lower is sparser.
        reciprocal: eps -> mean 1 / (|y| + eps), higher is sparser; eps in units of the root mean square.
        above: eps -> share of entries with |y| > eps.
    """

    l1: float
    hoyer: float
    l4: float
    f90: float
    f99: float
    reciprocal: dict[float, float]
    above: dict[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the eps become text keys."""
        plain = {name: getattr(self, name) for name in ("l1", "hoyer", "l4", "f90", "f99")}
        return plain | {name: {f"{e:g}": v for e, v in getattr(self, name).items()} for name in ("reciprocal", "above")}

    @property
    def seed(self) -> dict[float, float]:
        """The name of `reciprocal` in the version before."""
        return getattr(self, understood("seed", {"seed": "reciprocal"}, "of a Sparsity,"))

    def __repr__(self) -> str:
        reciprocal = ", ".join(f"{value:.3f} at eps {eps:g}" for eps, value in self.reciprocal.items())
        return f"Sparsity(L1 {self.l1:.3f}, 90 % of mass in {self.f90:.1%}, 99 % in {self.f99:.1%}; reciprocal measure {reciprocal})"


def reciprocal_in(figures: Mapping[str, Any]) -> dict[str, float]:
    """The reciprocal measure in what a report says of a matrix, also of the version before."""
    return figures["reciprocal" if "reciprocal" in figures else "seed"]


def sparsity(values: Float[Tensor, "*shape"], eps: Sequence[float] = EPS) -> Sparsity:
    """Measure a matrix, or a stack of matrices [inputs, out, in] of which each is scaled by itself.

    Args:
        eps: sizes in units of the root mean square, for the measures that need one.

    Returns:
        A `Sparsity`; all of it without unit.

    Raises:
        BasisError: eps <= 0, or nothing but zeros.
        NonFiniteError: NaN or infinity among the values.

    Examples:
        >>> import torch
        >>> gl.sparsity(torch.eye(4)).f99  # a quarter of the entries holds all of the mass
        0.25
    """
    check_eps(eps)
    if not torch.isfinite(values).all():
        raise NonFiniteError("the values to be measured hold NaN or infinity; expected a finite Jacobian")
    size = unit_rms(values).abs().flatten()
    mass, _ = size.square().double().sort(descending=True)
    mass = mass.cumsum(0) / mass.sum()
    count = len(size)
    l1 = float(size.mean(dtype=torch.float64))
    return Sparsity(
        l1=l1,
        hoyer=(count**0.5 - l1 * count**0.5) / (count**0.5 - 1) if count > 1 else 1.0,
        l4=float(size.double().pow(4).mean()),
        f90=_share(mass, 0.9),
        f99=_share(mass, 0.99),
        reciprocal={float(e): reciprocal_measure(size, e) for e in eps},
        above={float(e): float((size > e).double().mean()) for e in eps},
    )


def reciprocal_measure(values: Float[Tensor, "*shape"], eps: float = 0.1) -> float:
    """mean 1 / (|y| + eps) of values as they are; higher is sparser."""
    check_eps([eps])
    return float((values.abs() + eps).reciprocal().mean(dtype=torch.float64))


def unit_rms(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Values scaled to a root mean square of 1: each matrix of a stack of three axes by itself, zero ones left as they are."""
    if values.ndim == 3:
        rms = values.square().mean((1, 2), keepdim=True).sqrt()
    else:
        rms = values.square().mean().sqrt()
    if not rms.gt(0).any():
        raise BasisError(
            "every entry is zero: a zero Jacobian has no sparsity to measure. Look at the segment and its inputs"
        )
    return values / torch.where(rms > 0, rms, 1.0)


def check_eps(eps: Sequence[float]) -> None:
    """Refuse eps <= 0, at which 1 / (|y| + eps) has no bound, and an infinite one, at which it says nothing."""
    for e in eps:
        if not 0 < e < float("inf"):
            raise BasisError(
                f"eps must be positive and finite (a size relative to the root mean square, such as 0.1), got {e}"
            )


def _share(cumulative: Tensor, target: float) -> float:
    # a hair below the target, so that rounding in the last place does not add an entry
    return float((cumulative < target - 1e-9).sum() + 1) / len(cumulative)
