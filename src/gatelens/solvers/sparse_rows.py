"""Sparse features held by rows and by columns, in memory or memory-mapped: what walking tokens and features needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import NonFiniteError, SolverError

if TYPE_CHECKING:  # worker processes only map arrays: they start without torch and scipy
    from torch import Tensor

_PARTS = ("row_start", "column", "row_value", "column_start", "row", "column_value")


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A [rows, width] matrix twice: by rows (CSR) and by columns (CSC). Arrays may be memory maps.

    Attributes:
        row_start [rows + 1], column, row_value: CSR, columns of a row in order.
        column_start [width + 1], row, column_value: CSC, rows of a column in order.
    """

    row_start: np.ndarray
    column: np.ndarray
    row_value: np.ndarray
    column_start: np.ndarray
    row: np.ndarray
    column_value: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.row_start) - 1

    @property
    def width(self) -> int:
        return len(self.column_start) - 1

    @classmethod
    def of(cls, features: Tensor | SparseRows, name: str) -> SparseRows:
        """From features that are never negative, dense or torch CSR; `name` is for the error messages.

        Raises:
            SolverError: for negative features (a rotation's coordinates).
            NonFiniteError: for NaN or infinity.
        """
        if isinstance(features, SparseRows):
            return features
        by_row = scipy_rows(features)
        if not np.isfinite(by_row.data).all():
            raise NonFiniteError(
                f"{name} hold NaN or infinity: expected finite feature activations. Look at the basis that made them"
            )
        if len(by_row.data) and by_row.data.min() < 0:
            raise SolverError(
                f"{name} hold negative values (down to {by_row.data.min():.3g}): ReluOMP reads features that are on or off."
                " For rotated coordinates use GramLasso(signed=True)"
            )
        by_column = by_row.tocsc()
        return cls(by_row.indptr, by_row.indices, by_row.data, by_column.indptr, by_column.indices, by_column.data)

    def column_of(self, feature: int) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """The rows on which a feature is on, in order, and its values there."""
        span = slice(self.column_start[feature], self.column_start[feature + 1])
        return self.row[span], self.column_value[span]

    def entries_of(self, rows: Int[np.ndarray, " r"]) -> Int[np.ndarray, " r"]:
        """How many features are on in each of some rows."""
        return self.row_start[rows + 1].astype(np.int64) - self.row_start[rows]

    def take(
        self, rows: Int[np.ndarray, " r"]
    ) -> tuple[Int[np.ndarray, " e"], Int[np.ndarray, " e"], Float[np.ndarray, " e"]]:
        """The entries of some rows: (place of the row within `rows`, column, value)."""
        start, count = self.row_start[rows].astype(np.int64), self.entries_of(rows)
        place = np.repeat(np.arange(len(rows), dtype=np.int32), count)
        ends = np.cumsum(count)
        where = np.arange(len(place)) + np.repeat(start - ends + count, count)
        return place, self.column[where], self.row_value[where]

    def product(self, rows: Int[np.ndarray, " r"], values: Float[np.ndarray, " r"]) -> Float[np.ndarray, " m"]:
        """sum over rows of value * features: one row of F_out^T F_in, for the rows where that output is on."""
        place, column, value = self.take(rows)
        return np.bincount(column, values[place] * value, minlength=self.width)

    def power(self) -> Float[np.ndarray, " m"]:
        """Sum of squares of each feature."""
        return np.bincount(self.column, np.square(self.row_value, dtype=np.float64), minlength=self.width)

    def mean(self) -> Float[np.ndarray, " m"]:
        """Mean of each feature over all rows."""
        return np.bincount(self.column, self.row_value, minlength=self.width) / self.rows

    def save(self, folder: Path) -> None:
        """One .npy file an array, to be mapped by other processes."""
        folder.mkdir(parents=True, exist_ok=True)
        for part in _PARTS:
            np.save(folder / f"{part}.npy", getattr(self, part), allow_pickle=False)

    @classmethod
    def open(cls, folder: Path) -> SparseRows:
        """Map what `save` wrote; pages are read when touched and shared between processes."""
        maps = (np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False) for part in _PARTS)
        return cls(*(np.asarray(part) for part in maps))


def scipy_rows(features: Tensor) -> Any:
    """Scipy CSR without stored zeros; shares memory with a torch CSR tensor that has none."""
    import torch
    from scipy import sparse

    if features.layout != torch.sparse_csr:
        return sparse.csr_array(features.detach().cpu().to(torch.float32).numpy())
    parts = (features.values().detach(), features.col_indices(), features.crow_indices())
    value, column, start = (part.cpu().numpy() for part in parts)
    if len(value) < 2**31:
        column, start = column.astype(np.int32, copy=False), start.astype(np.int32, copy=False)
    matrix = sparse.csr_array((value.astype(np.float32, copy=False), column, start), tuple(features.shape))
    if len(value) and not value.all():
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    if not matrix.has_sorted_indices:
        matrix = matrix.sorted_indices()
    return matrix
