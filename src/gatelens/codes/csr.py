"""Sparse rows: torch's CSR tensors made, cut and stacked in one place."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .rows import Codes, stacked


def csr(
    crow: Int[Tensor, " rows_plus_1"],
    col: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    shape: tuple[int, int],
    check: bool = False,
) -> Tensor:
    """A CSR tensor.

    Args:
        check: prove that the indices are in order and in range, as for anything that comes from a disk: torch itself reads
            beyond its memory otherwise.
    """
    with warnings.catch_warnings():  # torch says once a process that its CSR support is in beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=check)


def as_csr(codes: Codes) -> Tensor:
    """Codes, the entries of whose rows are in order, as a torch CSR matrix."""
    return csr(codes.crow, codes.col, codes.value, (len(codes), codes.width))


def to_csr(dense: Float[Tensor, "rows f"]) -> Tensor:
    """The nonzeros of a dense matrix."""
    return as_csr(Codes.of(dense))


def stack_csr(parts: list[Tensor]) -> Tensor:
    """CSR matrices of equal width, one under the other."""
    return as_csr(stacked([Codes.of(part) for part in parts]))


def split_csr(f: Tensor, rows: int) -> Iterator[Tensor]:
    """A CSR matrix cut into blocks of rows (torch itself cannot slice one)."""
    crow, col, values = f.crow_indices(), f.col_indices(), f.values()
    for start in range(0, len(f), rows):
        pointers = crow[start : start + rows + 1]
        first, last = int(pointers[0]), int(pointers[-1])
        yield csr(pointers - first, col[first:last], values[first:last], (len(pointers) - 1, f.shape[1]))


def take_rows(f: Tensor, order: Int[Tensor, " rows"]) -> Tensor:
    """Rows of a dense or CSR matrix, in the order given."""
    order = order.to(f.device)
    return f[order] if f.layout != torch.sparse_csr else as_csr(Codes.of(f).rows(order))


def spread(rows: int, most: int) -> Int[Tensor, " picked"]:
    """At most `most` of `rows` row numbers, evenly spaced: the first thousands would be the rows of a few long documents."""
    return torch.linspace(0, rows - 1, min(rows, most), dtype=torch.float64).long()


def blocks(f: Tensor, rows: int) -> Iterator[Float[Tensor, "block f"]]:
    """Dense blocks of rows of a dense or CSR matrix."""
    if f.layout != torch.sparse_csr:
        yield from f.split(rows)
    else:
        yield from (block.to_dense() for block in split_csr(f, rows))
