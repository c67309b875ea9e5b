"""Linearity of composition: whether the activation is the sum of what its features contribute one by one.

A superposed code is linear: f_i adds f_i times a direction. A code may also pack numbers nonlinearly, as digits of one number
do ("Toy Models of Superposition", Elhage et al. 2022, has an example); then directions do not explain it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError

#: relative errors above this are no rounding: the code is not linear
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Linearity:
    """Relative errors (Frobenius norms over the rows); all 0 for a linear code that gives the activation exactly.

    Attributes:
        additivity: of the sum of single-feature contributions against the whole decoded row.
        scaling: of half of each contribution against the contribution of half the feature.
        unexplained: FVU of the sum against the activation itself; None where no activation was given.
        random_unexplained: the same with each row given another row's features: the null.
    """

    additivity: float
    scaling: float
    unexplained: float | None = None
    random_unexplained: float | None = None

    @property
    def linear(self) -> bool:
        """Whether features contribute along fixed directions, in proportion, and add up (within 0.1 %)."""
        return max(self.additivity, self.scaling) <= TOLERANCE

    def __repr__(self) -> str:
        rest = ""
        if self.unexplained is not None:
            rest = f"; the sum leaves {self.unexplained:.3f} of the activation's variance (shuffled rows {self.random_unexplained:.3f})"
        return (
            f"Linearity({'linear' if self.linear else 'NOT LINEAR'}: additivity error {self.additivity:.2g}, "
            f"scaling error {self.scaling:.2g}{rest})"
        )


def linearity(
    decode: Callable[[Tensor], Tensor], features: Float[Tensor, "rows f"], x: Float[Tensor, "rows d"] | None = None
) -> Linearity:
    """Test a code on rows of its features, each feature that is on taken by itself.

    Args:
        decode: features -> activation. x: the activations that the features were read from.

    Raises:
        DataError: decode gives the same vector for every row.
    """
    with torch.no_grad():
        origin = decode(torch.zeros_like(features[:1]))
        whole = decode(features) - origin
        if not float(whole.norm()) > 0:
            raise DataError(
                f"the decoder gives the same vector for every row: expected features that change it, got "
                f"{int((features != 0).sum())} nonzero entries in {len(features)} rows. Give rows on which features fire"
            )
        summed, broken, size = _one_by_one(decode, features, origin)
        unexplained = random = None
        if x is not None:
            unexplained = _fvu(summed + origin, x)
            random = _fvu(summed.roll(1, 0) + origin, x)
    return Linearity(
        float((summed - whole).norm() / whole.norm()), (broken / max(size, 1e-300)) ** 0.5, unexplained, random
    )


def _one_by_one(
    decode: Callable[[Tensor], Tensor], features: Float[Tensor, "rows f"], origin: Tensor
) -> tuple[Tensor, float, float]:
    """Sum of single contributions a row; squared error of halving a feature, and the squared size it is relative to."""
    summed = torch.zeros(len(features), origin.shape[1], dtype=origin.dtype)
    broken = size = 0.0
    rows, columns = features.nonzero(as_tuple=True)
    for part in torch.arange(len(rows)).split(2048):
        single = torch.zeros(len(part), features.shape[1], dtype=features.dtype)
        single[torch.arange(len(part)), columns[part]] = features[rows[part], columns[part]]
        contribution, halved = decode(single) - origin, decode(single / 2) - origin
        summed.index_add_(0, rows[part], contribution)
        broken += float(((halved - contribution / 2) ** 2).sum())
        size += float(((contribution / 2) ** 2).sum())
    return summed, broken, size


def _fvu(predicted: Tensor, x: Tensor) -> float:
    return float(((predicted - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum().clamp_min(1e-300))
