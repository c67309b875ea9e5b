"""Rows that gates are fitted to, natural ones and edits of them, and the normal equations of weighted least squares on these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..codes.rows import Codes, merged, minus, products_by_column, scipy_csr, stacked
from ..errors import BasisError

_SHRINK = 1e-3
#: features and outputs of the same rows
Both = tuple[Codes, Float[Tensor, "rows d"]]


@dataclass(frozen=True)
class Sample:
    """Features and outputs (or what a fit has left of them) of natural rows and, where there are any, of edits of them."""

    natural: Both
    edited: Both | None = None

    def each(self, change: Callable[[Codes, Tensor], Both]) -> Sample:
        """The same of the natural rows and of their edits."""
        return Sample(change(*self.natural), None if self.edited is None else change(*self.edited))

    def part(self, index: Int[Tensor, " some"]) -> Sample:
        """Some of the rows."""
        return self.each(lambda codes, y: (codes.rows(index), y[index]))


@dataclass(frozen=True)
class Rows:
    """Natural rows, and where their counterfactual partners come from.

    Attributes:
        partner: (row numbers, codes) -> (edited codes, edited output), or None to fit on natural rows alone.
    """

    codes: Codes
    y: Float[Tensor, "rows d"]
    partner: Callable[[Int[Tensor, " some"], Codes], Both] | None = None

    def at(self, index: Int[Tensor, " some"]) -> Sample:
        """Some of the rows, and their partners where there are any."""
        codes, y = self.codes.rows(index), self.y[index]
        return Sample((codes, y), None if self.partner is None else self.partner(index, codes))

    def together(self, index: Int[Tensor, " some"]) -> Both:
        """Some of the rows and, after them, their partners."""
        found = self.at(index)
        if found.edited is None:
            return found.natural
        return stacked([found.natural[0], found.edited[0]]), torch.cat([found.natural[1], found.edited[1]])


class NormalEquations:
    """Targets on features: minimise the sum of weight * |f W^T + b - y|^2 over all rows added, and a small penalty on W.

    A difference of two rows is added with `constant=False`: the intercept plays no part in it.
    """

    def __init__(self) -> None:
        self.inner: Tensor | None = None
        self.cross: Tensor | None = None

    def add(self, codes: Codes, y: Float[Tensor, "rows d"], weight: float = 1.0, constant: bool = True) -> None:
        a = _with_constant(codes, constant)
        self._add(a, weight * (a.T @ y.double().cpu().numpy()), weight)

    def add_edited(self, sample: Sample, lam: float, change: Codes | None = None) -> None:
        """Natural rows and, where there are any, their edits and the differences of both: the loss that gates are trained with.

        Args:
            change: of the features from the ones to the others, where it is at hand.
        """
        f, y = sample.natural
        self.add(f, y)
        if sample.edited is None:
            return
        f_edited, y_edited = sample.edited
        self.add(f_edited, y_edited)
        if lam:
            self.add(merged([f_edited, minus(f)]) if change is None else change, y_edited - y, lam, constant=False)

    def add_sparse(self, codes: Codes, targets: Codes) -> None:
        a = _with_constant(codes, True)
        self._add(a, (a.T @ scipy_csr(targets)).toarray())

    def _add(self, a: Any, cross: Any, weight: float = 1.0) -> None:
        if self.inner is None or self.cross is None:
            self.inner = torch.zeros(a.shape[1], a.shape[1], dtype=torch.float64)
            self.cross = torch.zeros(cross.shape, dtype=torch.float64)
        for part, product in products_by_column(a, a):
            self.inner[part] += torch.from_numpy(weight * product)
        self.cross += torch.from_numpy(cross)

    def solve(self, shrink: float = _SHRINK) -> tuple[Float[Tensor, "n m"], Float[Tensor, " n"]]:
        """Weights and intercept; `shrink` is the penalty in units of the features' mean power.

        Raises:
            BasisError: no rows were added.
        """
        if self.inner is None or self.cross is None:
            raise BasisError("least squares needs rows: none were added")
        inner = self.inner.clone()
        inner.diagonal()[:-1] += shrink * inner.diagonal()[:-1].mean().clamp_min(1e-12)
        inner.diagonal()[-1] += 1e-9
        solution = torch.cholesky_solve(self.cross, torch.linalg.cholesky(inner))
        return solution[:-1].T.float().contiguous(), solution[-1].float()


def _with_constant(codes: Codes, constant: bool) -> Any:
    import numpy as np
    from scipy.sparse import csr_matrix, hstack

    column = np.full((len(codes), 1), 1.0 if constant else 0.0)
    return hstack([scipy_csr(codes), csr_matrix(column)], format="csr")
