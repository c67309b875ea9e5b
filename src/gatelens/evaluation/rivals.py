"""What gates must be compared with: linear maps of all input features, to the output itself or to its features."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..codes.rows import Codes
from ..connectors import Connector
from ..gate_dictionaries.gate_start import omp_wires
from ..gate_dictionaries.rows import NormalEquations, Sample
from ..segments import Segment
from ..solvers.calibration import thresholded

_THRESHOLD_ROWS = 10_000
_PAIRS = 49_152  # added to the normal equations at a time


def ridge_to_output(
    segment: Segment,
    basis_in: Any,
    x: Float[Tensor, "rows d_in"],
    y: Float[Tensor, "rows d_out"],
    pairs: Any = None,
    lam: float = 0.0,
    codes: Codes | None = None,
) -> Connector:
    """Gate-free: y from all input features by ridge; each feature writes one direction.

    Args:
        pairs: a `Counterfactual`; with it the loss is that of `GateDictionary`: natural rows, edited rows, and `lam` times the
            squared error of each pair's difference.
        codes: the input features of `x`, where they are at hand.
    """
    gram = NormalEquations()
    codes = Codes.encode(basis_in, x) if codes is None else codes
    if pairs is None:
        gram.add(codes, y)
    else:
        for pair in pairs.pairs_of(segment, basis_in, x, _PAIRS, codes):
            gram.add_edited(Sample((pair.codes, pair.y), (pair.edit.codes, pair.y_edited)), lam, pair.edit.change)
    weight, bias = gram.solve()
    return Connector.from_dense(weight, bias, activation="identity", solver="gate-free ridge")


def dense_ridge(f_in: Tensor, f_out: Tensor) -> Connector:
    """Every output feature from all input features, with thresholds at which each is on as often as it should be."""
    inputs, outputs = Codes.of(f_in), Codes.of(f_out)
    gram = NormalEquations()
    gram.add_sparse(inputs, outputs)
    weight, bias = gram.solve()
    connector = Connector.from_dense(weight, bias, solver="dense ridge")
    return thresholded(connector, f_in, outputs.frequency(), _THRESHOLD_ROWS)


def linear_wires(f_in: Tensor, f_out: Tensor, fan_in: int) -> Connector:
    """Wires by forward selection and least squares, with thresholds at which each output is on as often as it should be."""
    out = Codes.of(f_out)
    every = torch.ones(f_in.shape[1], dtype=torch.bool)
    parents, weights, bias = omp_wires(Codes.of(f_in), out, every, fan_in)
    connector = Connector.from_rows(
        list(zip(parents, weights, strict=True)), bias, f_in.shape[1], solver="least squares"
    )
    return thresholded(connector, f_in, out.frequency(), _THRESHOLD_ROWS)
