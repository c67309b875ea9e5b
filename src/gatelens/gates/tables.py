"""Observed truth tables: how often an output fires under each pattern of its parents, counted column by column.

Nothing of size [rows, outputs] is ever made: an output's table costs as many steps as its parents and itself have
nonzeros, so that 24,576 outputs over a million rows are counted as easily as 100 over a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ..errors import DataError, NonFiniteError
from .gate import TruthTable


@dataclass(frozen=True)
class Columns:
    """Feature values over rows, stored a feature at a time, zeros left out.

    Attributes:
        starts: [features + 1] where each feature's entries begin.
        row: [entries] the row of each entry, ascending within a feature.
        value: [entries], never zero.
        rows, features: the shape.
        signed: some value is negative; "on" then means positive, the off state is "zero or negative".
    """

    starts: np.ndarray
    row: np.ndarray
    value: np.ndarray
    rows: int
    features: int
    signed: bool

    @classmethod
    def of(cls, f: Tensor, name: str) -> Columns:
        """From dense or sparse CSR [rows, features]; `name` is used in messages.

        Raises:
            DataError: not a matrix, or no rows.
            NonFiniteError: NaN or infinity, with the first row and feature.
        """
        if f.ndim != 2 or f.shape[0] == 0:
            raise DataError(
                f"{name} must be a matrix [rows, features] with at least one row; got shape {tuple(f.shape)}"
            )
        rows, features = f.shape
        if f.layout == torch.sparse_csr:
            parts = (f.values().detach().cpu().numpy(), f.col_indices().cpu().numpy(), f.crow_indices().cpu().numpy())
            matrix = scipy.sparse.csr_matrix(parts, shape=(rows, features)).tocsc()
            matrix.sum_duplicates()
        else:
            matrix = scipy.sparse.csc_matrix(f.detach().cpu().numpy())
        matrix.eliminate_zeros()
        if not np.isfinite(matrix.data).all():
            bad = int(np.flatnonzero(~np.isfinite(matrix.data))[0])
            feature = int(np.searchsorted(matrix.indptr, bad, side="right")) - 1
            raise NonFiniteError(
                f"{name} must be finite; got {matrix.data[bad]} in row {matrix.indices[bad]}, feature {feature}. "
                "Look at the activations or the basis that made it"
            )
        signed = bool((matrix.data < 0).any())
        return cls(matrix.indptr, matrix.indices, matrix.data, rows, features, signed)

    def entries(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and values of one feature's nonzeros."""
        span = slice(self.starts[feature], self.starts[feature + 1])
        return self.row[span], self.value[span]

    def on(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and values where the feature is positive."""
        row, value = self.entries(feature)
        if not self.signed:
            return row, value
        keep = value > 0
        return row[keep], value[keep]

    def firings(self) -> np.ndarray:
        """[features] on how many rows each feature is on."""
        if not self.signed:
            return np.diff(self.starts)
        positive = np.concatenate([[0], np.cumsum(self.value > 0)])
        return positive[self.starts[1:]] - positive[self.starts[:-1]]

    def mean_on(self) -> np.ndarray:
        """[features] mean value where on; 0 for a feature that never fires."""
        total = np.concatenate([[0.0], np.cumsum(np.maximum(self.value, 0), dtype=np.float64)])
        return (total[self.starts[1:]] - total[self.starts[:-1]]) / np.maximum(self.firings(), 1)

    def dense(self, feature: int) -> np.ndarray:
        """[rows] the feature's values, zeros included."""
        out = np.zeros(self.rows, np.float64)
        row, value = self.entries(feature)
        out[row] = value
        return out


@dataclass(frozen=True)
class Cells:
    """A table over all 2^k patterns of k parents; pattern code c has parent j on where bit j of c is set.

    Attributes:
        count, fired: [2^k] rows with the pattern, and those on which the output fired.
        total: [2^k] sum of the output over the rows with the pattern.
    """

    count: np.ndarray
    fired: np.ndarray
    total: np.ndarray

    @property
    def parents(self) -> int:
        return len(self.count).bit_length() - 1

    def __add__(self, other: Cells) -> Cells:
        return Cells(self.count + other.count, self.fired + other.fired, self.total + other.total)

    def marginal(self, keep: Sequence[int]) -> Cells:
        """The table over a subset of the parents, in the order given; the rest is summed over."""
        codes = np.arange(len(self.count))
        onto = sum(((codes >> j) & 1) << place for place, j in enumerate(keep)) + np.zeros_like(codes)
        fold = [np.bincount(onto, weights=x, minlength=1 << len(keep)) for x in (self.count, self.fired, self.total)]
        return Cells(*fold)

    def table(self, parents: int, **rest) -> TruthTable:
        """As a value for people: all patterns of up to four parents, only the seen ones of more."""
        codes = np.arange(len(self.count))
        if parents > 4:
            codes = codes[self.count > 0]
        count = torch.from_numpy(self.count[codes].astype(np.int64))
        return TruthTable(
            patterns=torch.from_numpy(((codes[:, None] >> np.arange(parents)) & 1).astype(bool)),
            count=count,
            fired=torch.from_numpy(self.fired[codes].astype(np.int64)),
            magnitude=(torch.from_numpy(self.total[codes]) / count.clamp_min(1)).float(),
            **rest,
        )


class Counter:
    """Counts tables over one set of rows; keeps one scratch entry a row."""

    def __init__(self, f_in: Columns, f_out: Columns):
        self.f_in, self.f_out = f_in, f_out
        self.code = np.zeros(f_in.rows, np.uint16)

    def cells(self, out: int, groups: Sequence[Sequence[int]]) -> Cells:
        """The table of one output over its parents; a parent is a group of features, on where any of them is.

        At most 16 parents.
        """
        on = [self._on(group) for group in groups]
        for place, rows in enumerate(on):
            self.code[rows] |= np.uint16(1 << place)
        size = 1 << len(groups)
        count = np.zeros(size)
        for place, rows in enumerate(on):
            codes = self.code[rows]
            # a row with several parents on is counted once: by the lowest of them
            count += np.bincount(codes[(codes & np.uint16((1 << place) - 1)) == 0], minlength=size)
        count[0] = self.f_in.rows - count.sum()
        fired_rows, values = self.f_out.on(out)
        fired_codes = self.code[fired_rows]
        fired = np.bincount(fired_codes, minlength=size).astype(np.float64)
        total = np.bincount(fired_codes, weights=values, minlength=size)
        for rows in on:
            self.code[rows] = 0
        return Cells(count, fired, total)

    def _on(self, group: Sequence[int]) -> np.ndarray:
        """Rows on which any feature of the group is on."""
        rows = [self.f_in.on(feature)[0] for feature in group]
        return rows[0] if len(rows) == 1 else np.unique(np.concatenate(rows))


def halves(f: Columns) -> tuple[Columns, Columns]:
    """The first and the second half of the rows."""
    middle = f.rows // 2
    first = f.row < middle
    return _part(f, first, 0, middle), _part(f, ~first, middle, f.rows - middle)


def _part(f: Columns, keep: np.ndarray, start: int, rows: int) -> Columns:
    kept = np.concatenate([[0], np.cumsum(keep)])
    return replace(f, starts=kept[f.starts], row=f.row[keep] - start, value=f.value[keep], rows=rows)
