"""What gates must be compared with: linear maps of all input features, to the output itself or to its features."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..bases.codes import Codes
from ..bases.gate_start import scipy_csr
from ..connectors import Connector
from ..segments import Segment

_SHRINK = 1e-3
_CALIBRATION_ROWS = 10_000


def ridge_to_output(
    segment: Segment,
    basis_in: Any,
    x: Float[Tensor, "rows d_in"],
    y: Float[Tensor, "rows d_out"],
    pairs: Any = None,
    lam: float = 0.0,
) -> Connector:
    """Gate-free: y from all input features by ridge; each feature writes one direction.

    Args:
        pairs: a `Counterfactual`; with it the loss is that of `GateDictionary`: natural rows, edited rows, and `lam` times the
            squared error of each pair's difference.
    """
    gram = _Normal(segment.d_out)
    if pairs is None:
        gram.add(Codes.encode(basis_in, x), y)
    else:
        for pair in pairs.pairs_of(segment, basis_in, x, batch_size=4_096):
            gram.add(pair.codes, pair.y)
            gram.add(pair.edit.codes, pair.y_edited)
            gram.add(pair.edit.change, pair.y_edited - pair.y, lam, constant=False)
    weight, bias = gram.solve()
    return Connector.from_dense(weight, bias, activation="identity", solver="gate-free ridge")


def dense_ridge(f_in: Tensor, f_out: Tensor) -> Connector:
    """Every output feature from all input features, with thresholds at which each is on as often as it should be."""
    from .ladder import calibrated

    inputs, outputs = Codes.of(f_in), Codes.of(f_out)
    gram = _Normal(outputs.width)
    gram.add_sparse(inputs, outputs)
    weight, bias = gram.solve()
    return calibrated(
        Connector.from_dense(weight, bias, solver="dense ridge"), f_in, outputs.frequency(), _CALIBRATION_ROWS
    )


class _Normal:
    """Normal equations of weighted least squares with an intercept, from sparse rows; float64."""

    def __init__(self, outputs: int):
        self.outputs = outputs
        self.inner = self.cross = None

    def add(self, codes: Codes, y: Tensor, weight: float = 1.0, constant: bool = True) -> None:
        a = self._with_constant(codes, constant)
        self._add(a, weight * (a.T @ a), weight * (a.T @ y.double().cpu().numpy()))

    def add_sparse(self, codes: Codes, targets: Codes) -> None:
        a = self._with_constant(codes, True)
        self._add(a, a.T @ a, (a.T @ scipy_csr(targets)).toarray())

    def _with_constant(self, codes: Codes, constant: bool) -> Any:
        import numpy as np
        from scipy.sparse import csr_matrix, hstack

        column = np.full((len(codes), 1), 1.0 if constant else 0.0)
        return hstack([scipy_csr(codes), csr_matrix(column)], format="csr")

    def _add(self, a: Any, inner: Any, cross: Any) -> None:
        inner, cross = torch.from_numpy(inner.toarray()), torch.from_numpy(cross)
        self.inner = inner if self.inner is None else self.inner.add_(inner)
        self.cross = cross if self.cross is None else self.cross.add_(cross)

    def solve(self) -> tuple[Float[Tensor, "n m"], Float[Tensor, " n"]]:
        if self.inner is None or self.cross is None:
            raise ValueError("no rows were added")
        inner = self.inner.clone()
        penalty = _SHRINK * inner.diagonal()[:-1].mean().clamp_min(1e-12)
        inner.diagonal()[:-1] += penalty
        inner.diagonal()[-1] += 1e-9
        solution = torch.linalg.solve(inner, self.cross)
        return solution[:-1].T.float().contiguous(), solution[-1].float()
