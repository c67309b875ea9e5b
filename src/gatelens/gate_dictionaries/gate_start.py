"""Where gate-first training starts: its units, a first choice of parents, weights and dictionary for every gate, what it will take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bases.sae.pair_training import Scale
from ..codes.active import level
from ..codes.rows import Codes, products_by_column, scipy_csr, stacked
from ..errors import BasisError, TooLargeError
from ..solvers.selection import forward_selection, selection_bytes
from ..store.estimate import Estimate, in_all

#: above this many entries, a table of inputs x outputs is screened by correlation instead of forward selection
SELECTION_ENTRIES = 4_096 * 4_096
_SHRINK = 1e-6
_POINTING = 1_024


@dataclass
class GateStart:
    """First values: parents and weights [n, k], bias [n], dictionary [n, d] (rows of length 1), offset [d]."""

    parents: Int[Tensor, "n k"]
    weights: Float[Tensor, "n k"]
    bias: Float[Tensor, " n"]
    dictionary: Float[Tensor, "n d"]
    offset: Float[Tensor, " d"]


@dataclass(frozen=True)
class Units:
    """Outputs centred with mean square 1 per coordinate, input features in units of their root mean square norm."""

    size_in: float
    size_out: float
    mean_out: Float[Tensor, " d"]

    @classmethod
    def of(cls, codes: Codes, y: Float[Tensor, "rows d"]) -> Units:
        out = Scale.of(y)
        if out.size == 0:
            raise BasisError(
                "the output is the same in every row: there is nothing to explain. Collect more varied inputs"
            )
        mean_power = float(codes.value.double().square().sum()) / max(len(codes.value), 1)
        return cls(max(mean_power, 1e-24) ** 0.5, out.size, out.mean)

    def codes(self, codes: Codes) -> Codes:
        return codes.over(self.size_in)

    def y(self, y: Tensor) -> Tensor:
        return (y - self.mean_out).div_(self.size_out)

    def start(self, first: GateStart) -> GateStart:
        """The start in training units; dictionary rows of another length than 1 hand their length to the gate."""
        length = first.dictionary.norm(dim=1).clamp_min(1e-12)
        return GateStart(
            first.parents,
            first.weights * length[:, None] * self.size_in / self.size_out,
            first.bias * length / self.size_out,
            first.dictionary / length[:, None],
            self.y(first.offset),
        )


def allowed_parents(codes: Codes, dense_share: float, fan_in: int) -> tuple[Bool[Tensor, " m"], dict[str, int]]:
    """Input features that gates may read, and how many are kept out and why.

    Raises:
        BasisError: no live parents, or fewer than the fan-in.
    """
    frequency = codes.frequency()
    live, dense = frequency > 0, frequency > dense_share
    allowed = live & ~dense
    count = int(allowed.sum())
    if not live.any():
        raise BasisError(
            "no input feature is ever on: there are no live parents. Look at the input dictionary and its threshold"
        )
    if count < fan_in:
        raise BasisError(
            f"fan_in = {fan_in} parents were asked for, {count} of {codes.width} input features can be parents "
            f"({int((~live).sum())} never on, {int(dense.sum())} on in more than {dense_share:.0%} of the rows). "
            "Lower fan_in, or raise dense_share"
        )
    return allowed, {"parents_dead": int((~live).sum()), "parents_dense": int(dense.sum())}


def pointing(left: Float[Tensor, "rows d"], dictionary: Float[Tensor, "n d"], l0: float) -> Codes:
    """How far rows point along the directions of a dictionary, `l0` of them a row in the mean, the furthest: what gates that are to
    explain what something else leaves can start from, where the dictionary's own features know the whole of the output."""
    along = dictionary / dictionary.norm(dim=1, keepdim=True).square().clamp_min(1e-12)
    blocks = left.split(_POINTING)
    least = level((part @ along.T for part in blocks), round(l0 * len(left)))
    found = []
    for part in blocks:
        far = part @ along.T
        found.append(Codes.of(torch.where(far > max(least, 0.0), far, 0.0)))
    return stacked(found)


def omp_wires(
    f_in: Codes, f_out: Codes, allowed: Bool[Tensor, " m"], fan_in: int
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"], Float[Tensor, " n"]]:
    """Each output feature on the `fan_in` inputs that explain it best: parents, weights and bias by least squares.

    Forward selection where the tables are small, the largest correlations otherwise (training regrows parents anyway).
    """
    columns = allowed.nonzero().squeeze(1)
    covariance, products, mean_in, mean_out = sparse_statistics(f_in, f_out, columns)
    n, k = products.shape[1], min(fan_in, len(columns))
    if products.numel() <= SELECTION_ENTRIES:
        chosen = forward_selection(covariance, products, budget=n * k, cap=k).inputs[:, :k]
    else:
        chosen = (products.abs() / covariance.diagonal().clamp_min(1e-12).sqrt()[:, None]).topk(k, dim=0).indices.T
    chosen = _filled(chosen, k, len(columns))
    weights = _least_squares(covariance, products, chosen)
    bias = mean_out - (weights * mean_in[chosen]).sum(1)
    device = f_in.value.device
    return columns[chosen.to(columns.device)], weights.float().to(device), bias.float().to(device)


def sparse_statistics(f_in: Codes, f_out: Codes, columns: Int[Tensor, " p"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Covariance of inputs [p, p], products with outputs [p, n] (both centred sums), and the means; float64, sparse products."""
    a, b = scipy_csr(f_in)[:, columns.cpu().numpy()], scipy_csr(f_out)
    mean_in, mean_out = np.asarray(a.mean(0)).ravel(), np.asarray(b.mean(0)).ravel()
    covariance, products = _centred(a, a, mean_in, mean_in), _centred(a, b, mean_in, mean_out)
    return covariance, products, torch.from_numpy(mean_in), torch.from_numpy(mean_out)


def _centred(a: Any, b: Any, mean_a: np.ndarray, mean_b: np.ndarray) -> Float[Tensor, "p n"]:
    out = np.empty((a.shape[1], b.shape[1]))
    for part, product in products_by_column(a, b):
        out[part] = product - a.shape[0] * np.outer(mean_a[part], mean_b)
    return torch.from_numpy(out)


def _least_squares(
    covariance: Float[Tensor, "p p"], products: Float[Tensor, "p n"], chosen: Int[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    inner = covariance[chosen[:, :, None], chosen[:, None, :]]
    scale = inner.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    inner = inner + _SHRINK * scale[:, None, None] * torch.eye(chosen.shape[1], dtype=inner.dtype)
    right = products.T.gather(1, chosen)
    return torch.linalg.solve(inner, right[..., None]).squeeze(-1)


def _filled(chosen: Int[Tensor, "n found"], k: int, choices: int) -> Int[Tensor, "n k"]:
    """Paths that ended early are filled up with inputs that they do not have yet."""
    if chosen.shape[1] < k:
        chosen = torch.cat([chosen, chosen.new_full((len(chosen), k - chosen.shape[1]), -1)], 1)
    for out in (chosen < 0).any(1).nonzero().squeeze(1).tolist():
        missing = chosen[out] < 0
        taken = torch.zeros(choices, dtype=torch.bool)
        taken[chosen[out][~missing]] = True
        chosen[out, missing] = (~taken).nonzero().squeeze(1)[: int(missing.sum())]
    return chosen


def check_memory(m: int, n: int, gib: float) -> None:
    """Refuse a regrowth table that would not fit, before anything is allocated."""
    wanted = 8 * m * n / 2**30
    if wanted > gib:
        raise TooLargeError(
            f"{m} input features x {n} gates: the table that finds new parents takes {wanted:.3g} GiB, memory_gib is {gib:g}. "
            "Raise memory_gib, choose a smaller width, or set rounds=0 to keep the parents of the start"
        )


def gates_estimate(rows: int, width: int, features: int, active: float, fan_in: int) -> Estimate:
    """Both ends' rows, their features, and tables of features by gates: those of the start, of new parents, or of the closed form.

    Args:
        width: of either end. features: at either end, so many of them `active` in a row.
    """
    square = features * features
    chosen = selection_bytes(features, fan_in) if square <= SELECTION_ENTRIES else 16 * square
    parts = {
        "the activations": 2 * 4 * rows * width,
        "the output in units of the training": 4 * rows * width,
        "the features": int(28 * rows * min(active, features)),
        "tables of features by gates": max(16 * square + chosen, 24 * square),
        "dictionaries and optimiser": 6 * 4 * width * features,
    }
    return in_all("bases", parts, disk=4 * (2 * width + 2) * features)
