"""Features: activations read in a basis, dense where narrow and sparse where wide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .bases.linear import Basis, basis_width

#: bases wider than this are encoded to sparse rows
SPARSE_WIDTH = 4_096
_ROWS = 4_096


def encode_rows(basis: Basis, x: Float[Tensor, "rows d"], sparse: bool | None = None) -> Tensor:
    """[rows, features], a dense tensor or CSR; a few thousand rows at a time, never the dense whole of a wide basis."""
    if sparse is None:
        sparse = basis_width(basis, x.shape[1]) > SPARSE_WIDTH
    with torch.no_grad():
        parts = [basis.encode(part) for part in x.split(_ROWS)]
        if not sparse:
            return torch.cat(parts)
        return stack_csr([part.to_sparse_csr() for part in parts])


def decode_rows(basis: Basis, f: Tensor) -> Float[Tensor, "rows d"]:
    """The activations that features stand for; CSR rows are made dense a few thousand at a time."""
    with torch.no_grad():
        return torch.cat([basis.decode(part) for part in blocks(f, _ROWS)])


def stack_csr(parts: list[Tensor]) -> Tensor:
    """CSR matrices of equal width, one under the other."""
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part.values()))
    crow = torch.cat([torch.zeros(1, dtype=torch.long), *(p.crow_indices()[1:] + e for p, e in zip(parts, ends, strict=False))])
    col = torch.cat([p.col_indices() for p in parts])
    values = torch.cat([p.values() for p in parts])
    return torch.sparse_csr_tensor(crow, col, values, (sum(len(p) for p in parts), parts[0].shape[1]))


def blocks(f: Tensor, rows: int) -> Iterator[Float[Tensor, "block f"]]:
    """Dense blocks of rows of a dense or CSR matrix."""
    if f.layout != torch.sparse_csr:
        yield from f.split(rows)
    else:
        yield from (block.to_dense() for block in split_csr(f, rows))


def split_csr(f: Tensor, rows: int) -> list[Tensor]:
    """A CSR matrix cut into blocks of rows (torch itself cannot slice one)."""
    crow, col, values = f.crow_indices(), f.col_indices(), f.values()
    blocks = []
    for start in range(0, len(f), rows):
        pointers = crow[start : start + rows + 1]
        first, last = int(pointers[0]), int(pointers[-1])
        size = (len(pointers) - 1, f.shape[1])
        blocks.append(torch.sparse_csr_tensor(pointers - first, col[first:last], values[first:last], size))
    return blocks


def output_features(basis_out: Any, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Tensor:
    """The features that a connector is to predict.

    An SAE or a rotation reads them from the output y. A dictionary made for a pair of hook points (a transcoder, a
    gate-first dictionary) computes them from the segment's input x: it has `features_from`.
    """
    if hasattr(basis_out, "features_from"):
        with torch.no_grad():
            return torch.cat([basis_out.features_from(part) for part in x.split(_ROWS)])
    return encode_rows(basis_out, y)
