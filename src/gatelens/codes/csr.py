"""Sparse rows: torch's CSR tensors made, cut and stacked in one place."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor


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


def to_csr(dense: Float[Tensor, "rows f"]) -> Tensor:
    """The nonzeros of a dense matrix."""
    counts = (dense != 0).sum(1)
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    row, col = dense.nonzero(as_tuple=True)
    return csr(crow, col, dense[row, col], (dense.shape[0], dense.shape[1]))


def stack_csr(parts: list[Tensor]) -> Tensor:
    """CSR matrices of equal width, one under the other."""
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part.values()))
    starts = [p.crow_indices()[1:] + end for p, end in zip(parts, ends, strict=False)]
    crow = torch.cat([starts[0].new_zeros(1), *starts])
    col = torch.cat([p.col_indices() for p in parts])
    values = torch.cat([p.values() for p in parts])
    return csr(crow, col, values, (sum(len(p) for p in parts), parts[0].shape[1]))


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
    if f.layout != torch.sparse_csr:
        return f[order]
    crow = f.crow_indices()
    counts, starts = crow.diff()[order], crow[:-1][order]
    pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    index = torch.arange(int(counts.sum()), device=f.device) - torch.repeat_interleave(pointers[:-1] - starts, counts)
    return csr(pointers, f.col_indices()[index], f.values()[index], (len(order), f.shape[1]))


def spread(rows: int, most: int) -> Int[Tensor, " picked"]:
    """At most `most` of `rows` row numbers, evenly spaced: the first thousands would be the rows of a few long documents."""
    return torch.linspace(0, rows - 1, min(rows, most), dtype=torch.float64).long()


def blocks(f: Tensor, rows: int) -> Iterator[Float[Tensor, "block f"]]:
    """Dense blocks of rows of a dense or CSR matrix."""
    if f.layout != torch.sparse_csr:
        yield from f.split(rows)
    else:
        yield from (block.to_dense() for block in split_csr(f, rows))
