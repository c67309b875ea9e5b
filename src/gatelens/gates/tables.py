"""Observed truth tables: how often an output fires under each pattern of its parents, counted column by column.

Nothing of size [rows, outputs] is ever made: an output's table costs as many steps as its parents and itself have
nonzeros, so that 24,576 outputs over a million rows are counted as easily as 100 over a thousand.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool
from torch import Tensor

from ..errors import DataError, NonFiniteError
from .gate import TruthTable
from .rule import Literal

#: features of a dense matrix that are made sparse at once
_COLUMNS = 64


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
            parts = f.detach().cpu().split(_COLUMNS, dim=1)  # of the whole at once, scipy takes five times the result
            matrix = scipy.sparse.hstack([scipy.sparse.csc_matrix(part.numpy()) for part in parts], format="csc")
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

    def matrix(self) -> scipy.sparse.csc_matrix:
        """The same as scipy holds it, [rows, features]; nothing is copied."""
        return scipy.sparse.csc_matrix((self.value, self.row, self.starts), shape=(self.rows, self.features))

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

    @property
    def patterns(self) -> Bool[np.ndarray, "cells k"]:
        """Which parents are on in each cell."""
        return ((np.arange(len(self.count))[:, None] >> np.arange(self.parents)) & 1).astype(bool)

    def __add__(self, other: Cells) -> Cells:
        return Cells(self.count + other.count, self.fired + other.fired, self.total + other.total)

    def table(self, source: typing.Literal["observed", "interventional"] = "observed") -> TruthTable:
        """As a value for people: all patterns of up to four parents, only the seen ones of more."""
        codes = np.arange(len(self.count))
        if self.parents > 4:
            codes = codes[self.count > 0]
        count = torch.from_numpy(self.count[codes].astype(np.int64))
        return TruthTable(
            patterns=torch.from_numpy(((codes[:, None] >> np.arange(self.parents)) & 1).astype(bool)),
            count=count,
            fired=torch.from_numpy(self.fired[codes].astype(np.int64)),
            magnitude=(torch.from_numpy(self.total[codes]) / count.clamp_min(1)).float(),
            source=source,
        )


class Counter:
    """Counts tables over one set of rows; keeps one scratch entry a row."""

    def __init__(self, f_in: Columns, f_out: Columns):
        self.f_in, self.f_out, self.rows = f_in, f_out, f_in.rows
        self.code = np.zeros(f_in.rows, np.uint16)

    def cells(self, out: int, literals: Sequence[Literal], level: float = 0.0) -> Cells:
        """The table of one output over at most 16 literals; rows on which it lies between zero and its level do not count."""
        size = 1 << len(literals)
        rows, codes = self._patterns(literals)
        count = np.bincount(codes, minlength=size).astype(np.float64)
        count[0] = self.rows - len(rows)
        fired_rows, values = self.f_out.on(out)
        fired_codes, above = self.code[fired_rows], values > level
        self.code[rows] = 0
        count -= np.bincount(fired_codes[~above], minlength=size)
        fired_codes, values = fired_codes[above], values[above]
        fired = np.bincount(fired_codes, minlength=size).astype(np.float64)
        return Cells(count, fired, np.bincount(fired_codes, weights=values, minlength=size))

    def _patterns(self, literals: Sequence[Literal]) -> tuple[np.ndarray, np.ndarray]:
        """Rows with any literal on, and their patterns; `self.code` holds these too, to be cleared by the caller."""
        on = []
        for place, literal in enumerate(literals):
            row, value = self.f_in.entries(literal.feature)
            on.append(row[value > literal.level])
            self.code[on[-1]] |= np.uint16(1 << place)
        # a row with several literals on is taken once: with the lowest of them
        first = [rows[self.code[rows] & np.uint16((1 << place) - 1) == 0] for place, rows in enumerate(on)]
        rows = np.concatenate(first) if first else np.zeros(0, np.int64)
        return rows, self.code[rows]


def some_rows(rows: np.ndarray, most: int = 8) -> tuple[int, ...]:
    """At most so many of the rows, spread evenly."""
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
    return tuple(int(r) for r in rows)


def halves(f: Columns) -> tuple[Columns, Columns]:
    """The first and the second half of the rows."""
    middle = f.rows // 2
    first = f.row < middle
    return _part(f, first, 0, middle), _part(f, ~first, middle, f.rows - middle)


def _part(f: Columns, keep: np.ndarray, start: int, rows: int) -> Columns:
    kept = np.concatenate([[0], np.cumsum(keep)])
    return replace(f, starts=kept[f.starts], row=f.row[keep] - start, value=f.value[keep], rows=rows)


def every(f: Columns, step: int) -> Columns:
    """Every so-manieth row."""
    kept = f.row % step == 0
    part = _part(f, kept, 0, -(-f.rows // step))
    return replace(part, row=part.row // step)
