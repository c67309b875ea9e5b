"""The figures themselves: explained variance, per-output R2, the share of an ablation's cost that is kept."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..basis.features import decode_rows
from ..basis.linear import Basis
from ..basis.output import decoded_output
from ..codes.csr import blocks
from ..connectors import Connector, through
from .parts import Cut, summed

_ROWS = 4_096


def gap_closed(clean: float | None, ablated: float | None, replaced: float | None) -> float | None:
    """The share of what ablation costs that a replacement keeps: 1 as good as the model, 0 as bad as the ablation.

    None when the ablation costs nothing, so that there is nothing to keep, and where one of them could not be had.
    """
    if clean is None or ablated is None or replaced is None:
        return None
    return (ablated - replaced) / (ablated - clean) if abs(ablated - clean) > 1e-9 else None


def fvu(x: Float[Tensor, "rows d"], x_hat: Float[Tensor, "rows d"]) -> float | None:
    """Fraction of variance unexplained, over all dimensions; None for constant rows."""
    variance = (x - x.mean(0)).double().square().sum()
    return float((x - x_hat).double().square().sum() / variance) if variance > 0 else None


def dictionary_figures(basis: Basis, x: Float[Tensor, "rows d"], f: Cut) -> dict[str, Any]:
    """FVU, mean number of active features and never-active features over the rows."""
    mean = x.mean(0)

    def part(rows: slice) -> tuple[Tensor, float, float]:
        own, codes = x[rows], f(rows)
        return firings(codes), _squares(own - decode_rows(basis, codes)), _squares(own - mean)

    active, error, variance = summed(len(x), part)
    return {
        "fvu": error / variance if variance > 0 else None,
        "l0": float(active.sum()) / len(x),
        "dead": int((active == 0).sum()),
    }


def connector_figures(
    connector: Connector,
    basis_out: Basis,
    f_in: Cut,
    f_out: Cut,
    y: Float[Tensor, "rows d"],
    x: Float[Tensor, "rows d_in"] | None = None,
) -> dict[str, Any]:
    """Size of a connector and how well it predicts: per-output R2 of features, FVU of what they decode to, both held out.

    `x`: the rows at the segment's input, for a dictionary with a bypass beside its features.
    """
    mean = y.mean(0)

    def part(rows: slice) -> tuple[Any, ...]:
        own = y[rows]
        predicted = torch.cat(list(through(connector, f_in(rows))))
        decoded = decode_rows(basis_out, predicted) if x is None else decoded_output(basis_out, predicted, x[rows])
        on = int(torch.count_nonzero(predicted))
        return *_moments(predicted, f_out(rows)), on, _squares(own - decoded), _squares(own - mean)

    wrong, total, square, on, error, variance = summed(len(y), part)
    fan_in, r2 = connector.fan_in(), _r2(wrong, total, square, len(y))
    defined = r2[torch.isfinite(r2)]
    return {
        "solver": connector.solver,
        "edges": connector.wires,
        "mean_fan_in": connector.wires / max(len(fan_in), 1),
        "max_fan_in": int(fan_in.max()) if len(fan_in) else 0,
        "outputs_without_edges": int((fan_in == 0).sum()),
        "median_r2": float(defined.median()) if len(defined) else None,
        "r2_over_half": float((defined > 0.5).float().mean()) if len(defined) else None,
        "fvu": error / variance if variance > 0 else None,
        "l0_predicted": on / max(len(y), 1),
    }


def firings(f: Tensor) -> Int[Tensor, " n"]:
    """On how many rows each feature is on; `f` is dense or sparse CSR."""
    return torch.stack([(block != 0).sum(0) for block in blocks(f, _ROWS)]).sum(0)


def per_output_r2(predicted: Tensor, f_out: Tensor) -> Float[Tensor, " n"]:
    """1 - squared error / variance for each output feature; NaN for one that is constant on these rows. Both are dense or CSR."""
    return _r2(*_moments(predicted, f_out), len(predicted))


def _moments(predicted: Tensor, f_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each output feature the sum of squared errors, of its values, and of their squares."""
    n = f_out.shape[1]
    error, total, square = (torch.zeros(n, dtype=torch.float64, device=f_out.device) for _ in range(3))
    for guess, true in zip(blocks(predicted, _ROWS), blocks(f_out, _ROWS), strict=True):
        error += (guess - true).double().square().sum(0)
        total += true.double().sum(0)
        square += true.double().square().sum(0)
    return error, total, square


def _r2(error: Tensor, total: Tensor, square: Tensor, rows: int) -> Float[Tensor, " n"]:
    variance = square - total.square() / max(rows, 1)
    return torch.where(variance > 1e-9 * square.clamp_min(1e-30), 1 - error / variance, torch.nan)


def _squares(difference: Tensor) -> float:
    return float(difference.double().square().sum())
