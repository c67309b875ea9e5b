"""Features: activations read in a basis, dense where narrow and sparse where wide."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..codes.csr import blocks, stack_csr, to_csr
from ..models import blockwise, place_of
from .linear import Basis, basis_width

#: codes of bases wider than this, of which fewer than this share is on in the first rows, are held as sparse rows
SPARSE_WIDTH, SPARSE_SHARE = 1_024, 0.25
_ROWS, _FIRST = 4_096, 64


def encode_rows(basis: Basis, x: Float[Tensor, "rows d"], sparse: bool | None = None) -> Tensor:
    """[rows, features], a dense tensor or CSR; a few thousand rows at a time, never the dense whole of a wide sparse code.

    Encoded where the basis is; the features lie where the rows do.

    Args:
        sparse: None: where the basis is wide and few of its features are on in the first rows.
    """
    return coded(basis.encode, place_of(basis, x.device), x, basis_width(basis, x.shape[1]), sparse)


def coded(
    encode: Callable[[Tensor], Tensor],
    device: torch.device,
    x: Float[Tensor, "rows d"],
    width: int,
    sparse: bool | None = None,
) -> Tensor:
    """`encode_rows` of any function of rows, on a device."""

    def encoded(part: Tensor) -> Tensor:
        return encode(part.to(device))

    with torch.no_grad():
        if sparse is None:
            sparse = held_sparse(width, lambda: encoded(x[:_FIRST]))
        if not sparse:
            return blockwise(encode, device, x, size=_ROWS)
        return stack_csr([to_csr(encoded(part)).to(x.device) for part in x.split(_ROWS)])


def held_sparse(width: int, first: Callable[[], Tensor]) -> bool:
    """Whether a code of so many features is held as sparse rows, by its first rows."""
    if width <= SPARSE_WIDTH:
        return False
    some = first()
    return some.numel() == 0 or int((some != 0).sum()) < SPARSE_SHARE * some.numel()


def decode_rows(basis: Basis, f: Tensor) -> Float[Tensor, "rows d"]:
    """The activations that features stand for; CSR rows are made dense a few thousand at a time."""
    device = place_of(basis, f.device)
    with torch.no_grad():
        return torch.cat([basis.decode(part.to(device)).to(f.device) for part in blocks(f, _ROWS)])


def dense_rows(f: Tensor) -> Float[Tensor, "rows f"]:
    """Few rows of features as a dense float32 matrix on the host."""
    return (f.to_dense() if f.layout == torch.sparse_csr else f).detach().float().cpu()
