"""Connectors with thresholds: least squares alone turns an output on far too often.

A small sum where the output is silent costs little squared error, and counts as a firing all the same. So each output gets
the threshold over which it is on in as many rows as the feature that it stands for, and over it the line that fits best.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..codes.csr import csr, spread, take_rows
from ..connectors import Connector
from ..errors import SolverError
from .sparse_rows import scipy_rows

#: sums of rows and outputs that are held at once
_SUMS = 4_000_000
#: share of all wires from which on a block of outputs is multiplied as a dense matrix
_DENSE = 0.1
#: an output that is on in fewer rows keeps its scale: there is too little to fit a line to
MIN_ROWS = 10


def calibrated(
    connector: Connector,
    f_in: Tensor,
    f_out: Tensor,
    rows: int = 20_000,
    on: Literal["firing", "error"] = "firing",
    line: bool = True,
) -> Connector:
    """The connector with a threshold for each output, over which it is on in as many rows as the true feature.

    Over the threshold its value is fitted again as scale * z + shift by least squares. Wires and their signs stay.

    Args:
        f_in, f_out: the features of the fit, [rows, m] and [rows, n], dense or sparse CSR.
        rows: so many of them are looked at, evenly spaced.
        on: "firing", or "error": the threshold that leaves the least squared error, whatever it does to firing.
        line: without, values over the threshold stay as they are.

    Raises:
        SolverError: a linear connector (its outputs do not fire), or rows or widths that do not fit together.
    """
    n, m = connector.weight.shape
    if connector.activation != "relu":
        raise SolverError(
            f"calibration sets thresholds: it needs a connector with activation relu, got {connector.activation}. "
            "Leave the linear outputs of rotated coordinates as they are"
        )
    if len(f_in) != len(f_out) or (f_in.shape[1], f_out.shape[1]) != (m, n):
        raise SolverError(
            f"the connector maps {m} features to {n}; expected these over the same rows, got {tuple(f_in.shape)} and "
            f"{tuple(f_out.shape)}. Give the features that it was fitted on"
        )
    x, y = (some_rows(f, rows) for f in (f_in, f_out))
    return calibrated_on(connector, x, y.tocsc(), on, MIN_ROWS if line else len(f_in) + 1)


def calibrated_on(
    connector: Connector, x: Any, y: Any, on: Literal["firing", "error"], min_rows: int = MIN_ROWS
) -> Connector:
    """The same from scipy's matrices, x [rows, m] CSR and y [rows, n] CSC; lines are fitted to no fewer than `min_rows`."""
    cuts, lines = _firing_cuts if on == "firing" else _error_cuts, []
    for span, z in sums(connector, x):
        true = y[:, span].toarray()
        lines.append(_lines(z, true, cuts(z, true, min_rows), min_rows))
    scale, shift, threshold = (torch.from_numpy(np.concatenate(part)).float() for part in zip(*lines, strict=True))
    old = connector.weight.detach()
    values = old.values() * torch.repeat_interleave(scale, connector.fan_in())
    n, m = old.shape
    weight = csr(old.crow_indices(), old.col_indices(), values, (n, m))
    return Connector(weight, scale * connector.bias + shift, threshold, "relu", connector.solver)


def thresholded(connector: Connector, f_in: Tensor, rates: Float[Tensor, " n"], rows: int = 20_000) -> Connector:
    """The connector with a threshold for each output, over which it is on in the given share of rows; values stay.

    Args:
        f_in: the features of the fit, [rows, m], dense or sparse CSR; `rows` of them are looked at, evenly spaced.
        rates: how often each output is to be on.
    """
    wanted, cuts = rates.detach().cpu().numpy(), []
    for span, z in sums(connector, some_rows(f_in, rows)):
        cuts.append(_cuts(z, np.rint(wanted[span] * len(z)).astype(np.int64)))
    threshold = torch.from_numpy(np.concatenate(cuts)).to(connector.bias)
    return Connector(connector.weight, connector.bias, threshold, "relu", connector.solver)


def some_rows(f: Tensor, rows: int) -> Any:
    """At most so many rows, evenly spaced, as a scipy CSR matrix."""
    return scipy_rows(take_rows(f, spread(len(f), rows)))


def sums(connector: Connector, x: Any) -> Iterator[tuple[slice, Float[np.ndarray, "rows n"]]]:
    """The sums of some outputs at a time, before threshold and activation, over scipy's CSR rows."""
    weight, bias = scipy_rows(connector.weight), connector.bias.detach().numpy()
    outputs = max(1, _SUMS // max(x.shape[0], 1))
    for start in range(0, len(bias), outputs):
        span = slice(start, start + outputs)
        wires = weight[span].T
        # a product with a dense matrix is the faster one where most wires are there
        z = x @ wires.toarray() if wires.nnz > _DENSE * wires.shape[0] * wires.shape[1] else (x @ wires).toarray()
        yield span, z + bias[span]


def _cuts(z: Float[np.ndarray, "rows n"], firings: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The threshold over which each output is on in so many rows, halfway to the next one; never below zero."""
    falling = -np.sort(-z, axis=0)
    last, next_one = (
        np.take_along_axis(falling, place.clip(0, len(z) - 1)[None], axis=0)[0] for place in (firings - 1, firings)
    )
    next_one = np.where(firings < len(z), next_one, 0.0)
    return np.maximum((last + next_one) / 2, 0.0)  # halfway, so that rounding moves no row across


def _firing_cuts(
    z: Float[np.ndarray, "rows n"], y: Float[np.ndarray, "rows n"], min_rows: int
) -> Float[np.ndarray, " n"]:
    """The threshold over which each output is on in as many rows as its feature."""
    return _cuts(z, (y > 0).sum(0))


def _error_cuts(
    z: Float[np.ndarray, "rows n"], y: Float[np.ndarray, "rows n"], min_rows: int
) -> Float[np.ndarray, " n"]:
    """The threshold of each output that leaves the least squared error, with a line fitted over it."""
    return np.array([_error_cut(a[a > 0], b[a > 0], min_rows) for a, b in zip(z.T, y.T, strict=True)])


def _error_cut(z: Float[np.ndarray, " rows"], y: Float[np.ndarray, " rows"], min_rows: int) -> float:
    """The same for one output, from the rows with a sum above zero: every threshold is tried, by running sums."""
    if not len(z):
        return 0.0
    order = np.argsort(-z)
    z, y = z[order].astype(np.float64), y[order].astype(np.float64)
    count, below = np.arange(1, len(z) + 1), np.append(z[1:], 0.0)
    sum_z, sum_y, zz, zy = (np.cumsum(part) for part in (z, y, z * z, z * y))
    squares, together = zz - sum_z**2 / count, zy - sum_z * sum_y / count
    line = (count >= min_rows) & (together > 0)
    gain = np.where(line, sum_y**2 / count + together**2 / np.maximum(squares, 1e-12), 2 * zy - zz)
    gain[z <= below] = -np.inf  # no threshold parts equal sums
    best = int(gain.argmax())
    return (z[best] + below[best]) / 2 if gain[best] > 0 else z[0]


def _lines(
    z: Float[np.ndarray, "rows n"], y: Float[np.ndarray, "rows n"], cut: Float[np.ndarray, " n"], min_rows: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Scale, shift and threshold of each output; the threshold is in the new scale, and never below zero."""
    on = z > cut
    count = np.maximum(on.sum(0), 1)
    mean_z, mean_y = (np.where(on, v, 0.0).sum(0) / count for v in (z, y))
    dz, dy = np.where(on, z - mean_z, 0.0), y - mean_y
    slope = (dz * dy).sum(0) / np.maximum(np.square(dz).sum(0), 1e-12)
    fitted = (count >= min_rows) & (slope > 0)
    scale = np.where(fitted, slope, 1.0)
    shift = np.where(fitted, mean_y - slope * mean_z, 0.0)
    return scale, shift, np.maximum(scale * cut + shift, 0.0)
