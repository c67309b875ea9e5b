"""Gram statistics: all that a linear fit of every output on every input needs, in one mergeable record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..codes.csr import split_csr
from ..distributed import all_rows, fill_rows, team
from ..errors import NonFiniteError, SolverError, TooLargeError
from ..store.shards import spans
from .sparse_rows import scipy_rows

#: a Gram matrix wider than this is refused: at 16,384 features it takes 2 GiB in float64
MAX_WIDTH = 16_384
_ROWS = 8_192  # dense rows turned into float64 at a time
_FEATURES = 128  # features whose products with all others are formed at a time, by one of several processes
_SPARSE = 0.1  # where a smaller share of the entries is on, products of sparse rows are the faster ones


@dataclass(frozen=True)
class Gram:
    """Sums over rows: n, F_in, F_out, F_in^T F_in, F_in^T F_out. `a + b` merges two parts of the rows.

    Sums are made in float64. The two matrices are kept in float32 where features are mostly off: there the mean that is
    taken off later is small beside what is left, and half the memory is saved.
    """

    rows: int
    sum_in: Float[Tensor, " m"]
    sum_out: Float[Tensor, " n"]
    in_in: Float[Tensor, "m m"]
    in_out: Float[Tensor, "m n"]

    @classmethod
    def of(cls, f_in: Tensor, f_out: Tensor) -> Gram:
        """From features over the same rows, [rows, m] and [rows, n], dense or sparse CSR; one pass.

        Raises:
            SolverError: different numbers of rows, or none.
            TooLargeError: when the matrices would not fit; `ReluOMP` needs none.
            NonFiniteError: NaN or infinity among the features.
        """
        if len(f_in) != len(f_out) or len(f_in) == 0:
            raise SolverError(
                f"f_in has {len(f_in)} rows and f_out {len(f_out)}; give features of the same rows, at least one"
            )
        m, n = f_in.shape[1], f_out.shape[1]
        if max(m, n) > MAX_WIDTH:
            raise TooLargeError(
                f"a Gram fit of {m} -> {n} features would hold {8 * m * (m + n) / 2**30:.1f} GiB of float64; at most "
                f"{MAX_WIDTH} features are taken. Use ReluOMP, which never forms these matrices"
            )
        on_host = f_in.device.type == "cpu"  # a GPU multiplies dense blocks faster than anything sparse
        if on_host and max(_density(f_in), _density(f_out)) < _SPARSE:
            total = cls._of_sparse(scipy_rows(f_in), scipy_rows(f_out))
        else:
            total = cls._of_dense(f_in, f_out)
        if not (torch.isfinite(total.in_in).all() and torch.isfinite(total.in_out).all()):
            raise NonFiniteError(
                "features hold NaN or infinity: expected finite numbers. Look at the SAE and the activations"
            )
        return total

    @classmethod
    def _of_dense(cls, f_in: Tensor, f_out: Tensor) -> Gram:
        """Each process goes through all rows for its own features, so that only the sums are sent, once."""
        m, n = f_in.shape[1], f_out.shape[1]
        sum_in, sum_out, in_in, in_out = (
            torch.zeros(shape, dtype=torch.float64, device=f_in.device) for shape in (m, n, (m, m), (m, n))
        )
        inputs, outputs = spans(m, _FEATURES), spans(n, _FEATURES)
        own_inputs, own_outputs = ([slice(s.start, s.stop) for s in _own(all_)] for all_ in (inputs, outputs))
        for x, y in zip(_dense_blocks(f_in), _dense_blocks(f_out), strict=True):
            for own in own_inputs:
                sum_in[own] += x[:, own].sum(0)
                in_in[own].addmm_(x[:, own].T, x)
                in_out[own].addmm_(x[:, own].T, y)
            for own in own_outputs:
                sum_out[own] += y[:, own].sum(0)
        in_in, in_out, sum_in = (all_rows(found, inputs) for found in (in_in, in_out, sum_in))
        return cls(len(f_in), sum_in, all_rows(sum_out, outputs), in_in, in_out)

    @classmethod
    def _of_sparse(cls, x: Any, y: Any) -> Gram:
        """The same from scipy's sparse rows: work in proportion to pairs of features that are on together."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        by_feature = x.T.tocsr()
        in_in, in_out = (_products(by_feature, other) for other in (x, y))
        sum_in, sum_out = (torch.from_numpy(np.asarray(part)) for part in (x.sum(0), y.sum(0)))
        return cls(x.shape[0], sum_in, sum_out, in_in, in_out)

    def __add__(self, other: Gram) -> Gram:
        return Gram(
            self.rows + other.rows,
            self.sum_in + other.sum_in,
            self.sum_out + other.sum_out,
            self.in_in + other.in_in,
            self.in_out + other.in_out,
        )

    @property
    def covariance(self) -> tuple[Float[Tensor, "m m"], Float[Tensor, "m n"]]:
        """Centred sums of squares and products: of inputs with inputs, of inputs with outputs (an intercept is free)."""
        return self._centred(self.in_in, self.sum_in), self._centred(self.in_out, self.sum_out)

    def _centred(self, products: Float[Tensor, "m k"], sums: Float[Tensor, " k"]) -> Float[Tensor, "m k"]:
        mean_in = (self.sum_in / self.rows).to(products.dtype)
        return torch.addr(products, mean_in, sums.to(products.dtype), alpha=-1)

    def covariance_of(self, out: int, parents: Tensor) -> tuple[Float[Tensor, "k k"], Float[Tensor, " k"]]:
        """`covariance` restricted to one output and its parents, in float64."""
        sums = self.sum_in[parents]
        inner = self.in_in[parents[:, None], parents].double() - torch.outer(sums, sums) / self.rows
        return inner, self.in_out[parents, out].double() - sums * self.sum_out[out] / self.rows

    def intercept(self, out: int, parents: Tensor, weights: Tensor) -> Tensor:
        """The bias that makes output `out`'s mean residual zero."""
        return (self.sum_out[out] - self.sum_in[parents] @ weights) / self.rows


def _products(by_feature: Any, other: Any) -> Float[Tensor, "m k"]:
    """F^T G from scipy's F^T [m, rows] and G [rows, k], a few features at a time, kept in float32."""
    found = torch.empty(by_feature.shape[0], other.shape[1])

    def products(span: range) -> Tensor:
        return torch.from_numpy((by_feature[span.start : span.stop] @ other).toarray())

    return fill_rows(found, _even(by_feature.indptr), products)


def _even(pointers: Int[np.ndarray, " m_1"]) -> list[range]:
    """Features in spans with about as many entries each: else the process that has the most frequent ones keeps the others waiting."""
    m = len(pointers) - 1
    goals = np.linspace(0, pointers[-1], 2 * -(-m // _FEATURES) + 1)
    ends = np.searchsorted(pointers, goals[1:-1])
    cuts = np.unique([*ends, *range(0, m, 2 * _FEATURES), m]).tolist()
    return [range(first, last) for first, last in pairwise(cuts)]


def _own(pieces: list[range]) -> list[range]:
    return [pieces[i] for i in team().owned(len(pieces))]


def _dense_blocks(f: Tensor) -> Iterator[Float[Tensor, "block f"]]:
    """Dense blocks of rows in float64; entries are converted before zeros are written between them."""
    parts = split_csr(f, _ROWS) if f.layout == torch.sparse_csr else f.split(_ROWS)
    return (part.double().to_dense() for part in parts)


def _density(f: Tensor) -> float:
    """The share of entries that are on."""
    on = len(f.values()) if f.layout == torch.sparse_csr else int(torch.count_nonzero(f))
    return on / max(f.shape[0] * f.shape[1], 1)
