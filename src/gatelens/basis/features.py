"""Features: activations read in a basis, dense where narrow and sparse where wide."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..codes.csr import blocks, stack_csr, to_csr
from ..models import blockwise, place_of
from .linear import Basis, basis_width

#: bases wider than this are encoded to sparse rows
SPARSE_WIDTH = 4_096
_ROWS = 4_096


def encode_rows(basis: Basis, x: Float[Tensor, "rows d"], sparse: bool | None = None) -> Tensor:
    """[rows, features], a dense tensor or CSR; a few thousand rows at a time, never the dense whole of a wide basis.

    Encoded where the basis is; the features lie where the rows do.
    """
    if sparse is None:
        sparse = basis_width(basis, x.shape[1]) > SPARSE_WIDTH
    device = place_of(basis, x.device)
    with torch.no_grad():
        if not sparse:
            return blockwise(basis.encode, device, x, size=_ROWS)
        return stack_csr([to_csr(basis.encode(part.to(device))).to(x.device) for part in x.split(_ROWS)])


def decode_rows(basis: Basis, f: Tensor) -> Float[Tensor, "rows d"]:
    """The activations that features stand for; CSR rows are made dense a few thousand at a time."""
    device = place_of(basis, f.device)
    with torch.no_grad():
        return torch.cat([basis.decode(part.to(device)).to(f.device) for part in blocks(f, _ROWS)])


def dense_rows(f: Tensor) -> Float[Tensor, "rows f"]:
    """Few rows of features as a dense float32 matrix on the host."""
    return (f.to_dense() if f.layout == torch.sparse_csr else f).detach().float().cpu()
