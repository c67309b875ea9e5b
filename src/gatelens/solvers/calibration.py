"""Connectors calibrated on firing: least squares alone turns an output on far too often.

A small sum where the output is silent costs little squared error, and counts as a firing all the same. So each output gets
the threshold over which it is on in as many rows as the feature that it stands for, and over it the line that fits best.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..connectors import Connector
from ..errors import SolverError
from ..sparse import csr, spread, take_rows
from .sparse_rows import scipy_rows

#: outputs whose sums are held at once
_OUTPUTS = 256
#: share of all wires from which on a block of outputs is multiplied as a dense matrix
_DENSE = 0.1
#: an output that is on in fewer rows keeps its scale: there is too little to fit a line to
MIN_ROWS = 10


def calibrated(connector: Connector, f_in: Tensor, f_out: Tensor, rows: int = 20_000) -> Connector:
    """The connector with a threshold for each output, over which it is on in as many rows as the true feature.

    Over the threshold its value is fitted again as scale * z + shift by least squares. Wires and their signs stay.

    Args:
        f_in, f_out: the features of the fit, [rows, m] and [rows, n], dense or sparse CSR.
        rows: so many of them are looked at, evenly spaced.

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
    y = scipy_rows(take_rows(f_out, spread(len(f_out), rows))).tocsc()
    lines = [_lines(z, y[:, span].toarray()) for span, z in _sums(connector, f_in, rows)]
    scale, shift, threshold = (torch.from_numpy(np.concatenate(part)).float() for part in zip(*lines, strict=True))
    old = connector.weight.detach()
    values = old.values() * torch.repeat_interleave(scale, connector.fan_in())
    weight = csr(old.crow_indices(), old.col_indices(), values, (n, m))
    return Connector(weight, scale * connector.bias + shift, threshold, "relu", connector.solver)


def thresholded(connector: Connector, f_in: Tensor, rates: Float[Tensor, " n"], rows: int = 20_000) -> Connector:
    """The connector with a threshold for each output, over which it is on in the given share of rows; values stay.

    Args:
        f_in: the features of the fit, [rows, m], dense or sparse CSR; `rows` of them are looked at, evenly spaced.
        rates: how often each output is to be on.
    """
    wanted, cuts = rates.detach().cpu().numpy(), []
    for span, z in _sums(connector, f_in, rows):
        cuts.append(_cuts(z, np.rint(wanted[span] * len(z)).astype(np.int64)))
    threshold = torch.from_numpy(np.concatenate(cuts)).to(connector.bias)
    return Connector(connector.weight, connector.bias, threshold, "relu", connector.solver)


def _sums(connector: Connector, f_in: Tensor, rows: int) -> Iterator[tuple[slice, Float[np.ndarray, "rows n"]]]:
    """The sums of some outputs at a time, before threshold and activation, on evenly spaced rows."""
    x = scipy_rows(take_rows(f_in, spread(len(f_in), rows)))
    weight, bias = scipy_rows(connector.weight), connector.bias.detach().numpy()
    for start in range(0, len(bias), _OUTPUTS):
        span = slice(start, start + _OUTPUTS)
        wires = weight[span].T
        # a product with a dense matrix is the faster one where most wires are there
        sums = x @ wires.toarray() if wires.nnz > _DENSE * wires.shape[0] * wires.shape[1] else (x @ wires).toarray()
        yield span, sums + bias[span]


def _cuts(z: Float[np.ndarray, "rows n"], firings: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The threshold over which each output is on in so many rows, halfway to the next one; never below zero."""
    firings = np.minimum(firings, len(z) - 1)
    falling = -np.sort(-z, axis=0)
    last, next_one = (
        np.take_along_axis(falling, place[None], axis=0)[0] for place in (np.maximum(firings - 1, 0), firings)
    )
    return np.maximum((last + next_one) / 2, 0.0)  # halfway, so that rounding moves no row across


def _lines(
    z: Float[np.ndarray, "rows n"], y: Float[np.ndarray, "rows n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Scale, shift and threshold of each output; the threshold is in the new scale, and never below zero."""
    cut = _cuts(z, (y > 0).sum(0))
    on = z > cut
    count = np.maximum(on.sum(0), 1)
    mean_z, mean_y = (np.where(on, v, 0.0).sum(0) / count for v in (z, y))
    dz, dy = np.where(on, z - mean_z, 0.0), y - mean_y
    slope = (dz * dy).sum(0) / np.maximum(np.square(dz).sum(0), 1e-12)
    fitted = (count >= MIN_ROWS) & (slope > 0)
    scale = np.where(fitted, slope, 1.0)
    shift = np.where(fitted, mean_y - slope * mean_z, 0.0)
    return scale, shift, np.maximum(scale * cut + shift, 0.0)
