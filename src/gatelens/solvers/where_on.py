"""Outputs behind a threshold, fitted where they are on: weights over those rows, the threshold for these weights, and again.

A fit over all rows spends its weights on keeping silent sums low, which the threshold does anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..codes.csr import csr
from ..connectors import Connector
from .calibration import calibrated_on, some_rows, sums
from .one_sided import Fit, column_of

_SHRINK = 1e-3  # of the weights, in units of the inputs' mean power
_ROWS_A_WEIGHT = 2  # an output that is on in fewer rows keeps its weights


def fitted_where_on(
    connector: Connector, f_in: Tensor, f_out: Tensor, rows: int = 20_000, rounds: int = 2
) -> Connector:
    """The connector with the same wires and less squared error: weights and thresholds fitted in turn.

    An output takes what a round finds only where its squared error over the rows falls.

    Args:
        connector: with thresholds, as of `calibrated(..., on="error")`.
        f_in, f_out: the features of the fit, [rows, m] and [rows, n], dense or sparse CSR; `rows` of them are looked at.
    """
    x, y = some_rows(f_in, rows), some_rows(f_out, rows).tocsc()
    columns, error = x.tocsc(), _errors(connector, x, y)
    for _ in range(rounds):
        found = calibrated_on(_fitted(connector, x, columns, y), x, y, "error")
        new = _errors(found, x, y)
        connector, error = _either(found, connector, torch.from_numpy(new < error)), np.minimum(new, error)
    return connector


def _fitted(connector: Connector, x: Any, columns: Any, y: Any) -> Connector:
    """Least squares for each output over the rows on which it is on as it stands; `columns`: x as CSC."""
    threshold, wires, bias = _threshold(connector), [], []
    for span, z in sums(connector, x):
        for out, on in enumerate((z > threshold[span]).T, span.start):
            parents, weights = connector.parents(out)
            fit = _least_squares(columns, parents, y, out, on) or (weights, float(connector.bias[out]))
            wires.append((parents, fit[0]))
            bias.append(fit[1])
    return Connector.from_rows(wires, torch.tensor(bias), x.shape[1], solver=connector.solver)


def _least_squares(x: Any, parents: Int[Tensor, " k"], y: Any, out: int, on: Bool[np.ndarray, " rows"]) -> Fit | None:
    """Weights and bias of one output over some rows; None where these are too few."""
    count, k = int(on.sum()), len(parents)
    if count < _ROWS_A_WEIGHT * (k + 1):
        return None
    A, column = np.ones((count, k + 1)), np.zeros(len(on))
    for i, parent in enumerate(parents.tolist()):
        rows, values = column_of(x, parent)
        column[rows] = values
        A[:, i] = column[on]
        column[rows] = 0
    rows, values = column_of(y, out)
    column[rows] = values
    inner = A.T @ A
    inner[np.diag_indices(k)] += _SHRINK * max(inner.diagonal()[:k].mean(), 1e-12) if k else 0.0
    solution = torch.from_numpy(np.linalg.solve(inner, A.T @ column[on])).float()
    return solution[:-1], float(solution[-1])


def _errors(connector: Connector, x: Any, y: Any) -> Float[np.ndarray, " n"]:
    """The squared error of each output over the rows."""
    threshold, found = _threshold(connector), np.zeros(len(connector.bias))
    for span, z in sums(connector, x):
        value = np.where(z > threshold[span], z, 0.0)
        found[span] = np.square(value - y[:, span].toarray(), dtype=np.float64).sum(0)
    return found


def _either(new: Connector, old: Connector, better: Bool[Tensor, " n"]) -> Connector:
    """The outputs of `new` where it is better, of `old` elsewhere; both have the same wires."""
    weight, of_wires = old.weight, torch.repeat_interleave(better, old.fan_in())
    n, m = weight.shape
    values = torch.where(of_wires, new.weight.values(), weight.values())
    weight = csr(weight.crow_indices(), weight.col_indices(), values, (n, m))
    threshold = torch.where(better, *(torch.from_numpy(_threshold(connector)) for connector in (new, old)))
    return Connector(weight, torch.where(better, new.bias, old.bias), threshold, "relu", old.solver)


def _threshold(connector: Connector) -> Float[np.ndarray, " n"]:
    """Thresholds, or the zeros of a ReLU."""
    silent = torch.zeros_like(connector.bias) if connector.threshold is None else connector.threshold
    return silent.detach().numpy()
