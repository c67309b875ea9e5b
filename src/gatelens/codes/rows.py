"""Codes: the active features of many rows, row by row; what sparse training reads, edits and writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

_ROWS, _COLUMNS = 2_048, 256


@dataclass(frozen=True)
class Codes:
    """Sparse rows of features, as CSR without its restrictions: entries of a row need not be sorted, and may repeat.

    Attributes:
        crow: [rows + 1], where each row's entries begin.
        col, value: the features that are on, and how much.
        width: the number of features.
    """

    crow: Int[Tensor, " rows_and_1"]
    col: Int[Tensor, " entries"]
    value: Float[Tensor, " entries"]
    width: int

    @classmethod
    def of(cls, f: Tensor) -> Codes:
        """From dense or CSR features, [rows, width]."""
        if f.layout == torch.sparse_csr:
            return cls(f.crow_indices(), f.col_indices(), f.values(), f.shape[1])
        rows, cols = f.nonzero(as_tuple=True)
        return cls.from_entries(rows, cols, f[rows, cols], len(f), f.shape[1])

    @classmethod
    def from_entries(cls, row: Tensor, col: Tensor, value: Tensor, rows: int, width: int) -> Codes:
        """From entries in order of their rows."""
        return cls(offsets(row, rows), col, value, width)

    @classmethod
    def encode(cls, basis: Any, x: Float[Tensor, "rows d"]) -> Codes:
        """What a basis makes of activations, a few thousand rows at a time."""
        with torch.no_grad():
            return stacked([cls.of(basis.encode(part)) for part in x.split(_ROWS)])

    def __len__(self) -> int:
        return len(self.crow) - 1

    @property
    def row(self) -> Int[Tensor, " entries"]:
        """The row of each entry."""
        return torch.repeat_interleave(self.crow.diff())

    def rows(self, index: Int[Tensor, " picked"]) -> Codes:
        """Some of the rows, in the order given."""
        counts = self.crow.diff()[index]
        crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        entry = torch.repeat_interleave(self.crow[index] - crow[:-1], counts) + torch.arange(
            int(crow[-1]), device=crow.device
        )
        return Codes(crow, self.col[entry], self.value[entry], self.width)

    def only(self, kept: Bool[Tensor, " entries"]) -> Codes:
        """Some of the entries of every row."""
        return Codes.from_entries(self.row[kept], self.col[kept], self.value[kept], len(self), self.width)

    def over(self, size: float | Float[Tensor, " entries"]) -> Codes:
        """The same features in other units, value / size."""
        return Codes(self.crow, self.col, self.value / size, self.width)

    def times(self, matrix: Float[Tensor, "width d"]) -> Float[Tensor, "rows d"]:
        """f @ matrix."""
        return weighted_rows(matrix, self.col, self.value, self.crow[:-1])

    def dense(self) -> Float[Tensor, "rows width"]:
        out = self.value.new_zeros(len(self), self.width)
        return out.index_put_((self.row, self.col), self.value, accumulate=True)

    def columns(self) -> Float[Tensor, "width rows"]:
        """The dense matrix, feature by feature."""
        out = self.value.new_zeros(self.width, len(self))
        return out.index_put_((self.col, self.row), self.value, accumulate=True)

    def frequency(self) -> Float[Tensor, " width"]:
        """The share of rows in which each feature is on."""
        return torch.bincount(self.col, minlength=self.width) / max(len(self), 1)

    def mean_square(self) -> Float[Tensor, " width"]:
        """The mean square of each feature over all rows."""
        return (self._total(self.value.double().square()) / max(len(self), 1)).to(self.value.dtype)

    def typical(self) -> Float[Tensor, " width"]:
        """The mean value of each feature over the rows in which it is on; 0 for one that never is."""
        count = torch.bincount(self.col, minlength=self.width)
        return (self._total(self.value.double()) / count.clamp_min(1)).to(self.value.dtype)

    def _total(self, value: Float[Tensor, " entries"]) -> Float[Tensor, " width"]:
        return value.new_zeros(self.width).index_add_(0, self.col, value)


def stacked(parts: list[Codes]) -> Codes:
    """Codes of the same width, one under the other."""
    counts = torch.cat([p.crow.diff() for p in parts])
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Codes(crow, torch.cat([p.col for p in parts]), torch.cat([p.value for p in parts]), parts[0].width)


def merged(parts: Sequence[Codes], width: int | None = None) -> Codes:
    """The entries of codes over the same rows, those of the first part first in each row; one feature may come twice."""
    row = torch.cat([p.row for p in parts])
    order = torch.argsort(row, stable=True)
    col, value = torch.cat([p.col for p in parts])[order], torch.cat([p.value for p in parts])[order]
    return Codes.from_entries(row[order], col, value, len(parts[0]), parts[0].width if width is None else width)


def beside(a: Codes, b: Codes) -> Codes:
    """The features of two codes of the same rows, one after the other."""
    return merged([a, replace(b, col=b.col + a.width)], a.width + b.width)


def minus(codes: Codes) -> Codes:
    """The same entries with the other sign."""
    return replace(codes, value=-codes.value)


def offsets(row: Int[Tensor, " entries"], rows: int) -> Int[Tensor, " rows_and_1"]:
    """Where each row's entries begin, for entries in order of their rows."""
    counts = torch.bincount(row, minlength=rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def weighted_rows(
    table: Float[Tensor, "f d"],
    index: Int[Tensor, " entries"],
    weight: Float[Tensor, " entries"],
    starts: Int[Tensor, " bags"],
) -> Float[Tensor, "bags d"]:
    """For each bag of entries, the sum of weight * table[index]; derivatives in both table and weight."""
    return F.embedding_bag(index, table, starts, mode="sum", per_sample_weights=weight)


def products_by_column(a: Any, b: Any) -> Iterator[tuple[slice, Any]]:
    """a.T @ b of two scipy matrices, dense, some of its rows at a time: such a product of features is all but dense."""
    by_column = a.T.tocsr()
    for start in range(0, a.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        yield part, (by_column[part] @ b).toarray()


def scipy_csr(codes: Codes):
    """The codes as a scipy CSR matrix in float64."""
    from scipy.sparse import csr_matrix

    parts = (codes.value.double().cpu().numpy(), codes.col.cpu().numpy(), codes.crow.cpu().numpy())
    return csr_matrix(parts, shape=(len(codes), codes.width))
